// A program on what openapi-typescript makes: every answer of the document is a type.
import createClient from "openapi-fetch";
import type { paths } from "./types.js";

declare const process: { env: Record<string, string>; exitCode: number };
declare const console: { log(text: string): void };

const api = createClient<paths>({
  baseUrl: process.env.KYORA_URL,
  headers: { Authorization: `Bearer ${process.env.KYORA_TOKEN}` },
});

// The documented body in short: what has a default may be left out.
const asked = await api.POST("/v1/assets/upload", { body: { filename: "mug.png", size: 48213 } });
if (!asked.data) throw new Error(JSON.stringify(asked.error));
const ticket: { assetId: string; uploadUrl: string; method: "PUT" } = asked.data;

// API Gateway itself answers some statuses with a bare message, so a problem is recognised by its code.
const { error: refused } = await api.POST("/v1/assets/upload", { body: { filename: "mug.exe", size: 1 } });
const code = refused && "code" in refused ? refused.code : undefined;

const path = { assetId: "ast_00000000000000000000000000" };
const { error: missing } = await api.GET("/v1/assets/{assetId}", { params: { path } });
const title = missing && "title" in missing ? missing.title : undefined;

const again = await api.POST("/v1/assets/{assetId}/confirm", { params: { path: { assetId: ticket.assetId } } });
const conflict = again.error && "code" in again.error ? again.error.code : undefined;
console.log(JSON.stringify({ asset: ticket.assetId, code, title, conflict, status: again.response.status }));
