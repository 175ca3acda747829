// Verifies requests of kind webhook with the public libraries standardwebhooks and
// svix: reads [{"secret","headers","body"}] (the body in base64) and writes, for each
// request and library, what it says of it.
import { readFileSync } from "node:fs";
import * as standard from "standardwebhooks";
import * as svix from "svix";

const said = (Webhook, { secret, headers, body }) => {
  try {
    new Webhook(secret).verify(Buffer.from(body, "base64").toString("utf8"), headers);
    return "ok";
  } catch (err) {
    return String(err.message);
  }
};

const requests = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(requests.map((r) => ({
  standardwebhooks: said(standard.Webhook, r),
  svix: said(svix.Webhook, r),
}))));
