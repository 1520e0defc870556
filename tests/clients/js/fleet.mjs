// The fleet, and the packages in the folder that `make check-clients` has filled.
import { createRequire } from "node:module";

export const client = createRequire(`${process.env.CLIENTS_JS}/package.json`);
export const fleet = {
  url: process.env.CLIENTS_URL,
  key: process.env.CLIENTS_KEY,
  single: process.env.CLIENTS_SINGLE,
};
export const MODEL = "smollm2-135m-instruct";
export const ASK = [{ role: "user", content: "Say hello." }];
export const CITY = {
  type: "object",
  properties: { city: { enum: ["Paris", "Rome"] } },
  required: ["city"],
  additionalProperties: false,
};
export const TOOLS = [
  { type: "function", function: { name: "weather", description: "Tells it.", parameters: CITY } },
];
