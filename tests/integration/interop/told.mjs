// What all clients share: what they are told, and how they say what came of it.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

// The packages lie outside the repository, where imports of ES modules do not look.
export const require = createRequire(process.env.INTEROP_MODULES + "/package.json");

export const told = JSON.parse(readFileSync(0, "utf8"));

export function say(name, answer) {
  process.stdout.write(JSON.stringify({ case: name, ...answer }) + "\n");
}

// Ends the process once all that was said is out; connections that are still open would keep it.
export function done() {
  process.stdout.write("", () => process.exit(0));
}
