// The same program on what hey-api makes.
import { client } from "./hey/client.gen.js";
import { confirmUpload, getAsset, requestUpload } from "./hey/sdk.gen.js";
import type { RequestUploadErrors, UploadTicket } from "./hey/types.gen.js";

declare const process: { env: Record<string, string> };
declare const console: { log(text: string): void };

client.setConfig({ baseUrl: process.env.KYORA_URL as "http://127.0.0.1:8000", auth: process.env.KYORA_TOKEN });

const asked = await requestUpload({ body: { filename: "mug.png", size: 48213 } });
if (!asked.data) throw new Error("refused");
const ticket: UploadTicket = asked.data;

const refused = await requestUpload({ body: { filename: "mug.exe", size: 1 } });
const problem = refused.error as RequestUploadErrors[415] | undefined;
const code: "asset.type_not_allowed" | undefined = problem?.code;

const missing = await getAsset({ path: { assetId: "ast_00000000000000000000000000" } });
const title = (missing.error as { title: string }).title;

const again = await confirmUpload({ path: { assetId: ticket.assetId } });
console.log(JSON.stringify({ asset: ticket.assetId, code, title, conflict: (again.error as { code: string }).code, status: again.response?.status }));
