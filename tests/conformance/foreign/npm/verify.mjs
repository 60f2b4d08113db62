// Ask Sigstore's own JavaScript whether bundles were signed by the keys they are said to be.
//
// Reads one question a line, {"bundle": TEXT, "key": PEM}, and answers each with a line: ok and
// the payload's SHA-256, or fail and why. Nothing is fetched: trust is the key that is given.

import { createHash, createPublicKey } from "node:crypto";
import { createInterface } from "node:readline";

import { bundleFromJSON } from "@sigstore/bundle";
import { toSignedEntity, Verifier } from "@sigstore/verify";

function trusting(pem) {
  const publicKey = createPublicKey(pem);
  const der = publicKey.export({ type: "spki", format: "der" });
  const hint = createHash("sha256").update(der).digest("base64");
  return {
    certificateAuthorities: [],
    timestampAuthorities: [],
    tlogs: [],
    ctlogs: [],
    publicKey(named) {
      if (named !== hint) {
        throw new Error("the bundle names another key");
      }
      return { publicKey, validFor: () => true };
    },
  };
}

function verified(question) {
  const { bundle: text, key } = JSON.parse(question);
  const bundle = bundleFromJSON(JSON.parse(text));
  const verifier = new Verifier(trusting(key), {
    tlogThreshold: 0,
    ctlogThreshold: 0,
    timestampThreshold: 0,
  });
  verifier.verify(toSignedEntity(bundle));
  return createHash("sha256").update(bundle.content.dsseEnvelope.payload).digest("hex");
}

for await (const question of createInterface({ input: process.stdin })) {
  try {
    console.log(`ok ${verified(question)}`);
  } catch (error) {
    console.log(`fail ${error.code ?? error.name}: ${String(error.message).split("\n")[0]}`);
  }
}
