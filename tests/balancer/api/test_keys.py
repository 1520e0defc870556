"""The list of keys for admins."""

from __future__ import annotations

from pathlib import Path

from balancer.clients.keys import key_id
from tests.balancer.endpoint import a_secret, endpoint

PATH = "/edgeserve/v1/keys"
SECRET = "sk-" + "k" * 40


async def test_an_admin_sees_keys_and_nothing_that_lets_a_client_in(
    tmp_path: Path,
) -> None:
    keys = a_secret(tmp_path, "keys", f"# laptop\n{SECRET}")
    async with endpoint(api_key_file=keys, state_dir=tmp_path) as balancer:
        admin = next(tmp_path.glob("admin-*.key")).read_text().strip()
        shown = await balancer.get(PATH, {"authorization": f"Bearer {admin}"})
        without = await balancer.get(PATH)

    assert shown.json["needed"]
    assert [each["name"] for each in shown.json["keys"]] == ["laptop"]
    assert SECRET.encode() not in shown.body
    assert key_id(SECRET).encode() not in shown.body
    assert without.status == 401
