// What a page of a front end does to upload files; the test puts API, TOKEN and FILES before it.

const json = {"Authorization": `Bearer ${TOKEN}`, "Content-Type": "application/json"};

async function call(method, path, body) {
  const answer = await fetch(API + path, {method, headers: json, body: body && JSON.stringify(body)});
  const found = await answer.json();
  if (!answer.ok) throw new Error(`${answer.status} ${JSON.stringify(found)}`);
  return found;
}

async function file({name, type, base64, record}) {
  if (record) return recording(name, record);
  return new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name, {type});
}

// What this browser records itself, of a type like video/webm;codecs=vp8: a second, and on a busy
// machine as long as it takes until there is something.
async function recording(name, kind) {
  let stream, tick;
  if (kind === "audio") {
    // Samples written by hand: a machine without a sound card has no AudioContext that runs.
    const track = new MediaStreamTrackGenerator({kind: "audio"});
    const writer = track.writable.getWriter();
    let timestamp = 0;
    tick = setInterval(() => {
      const data = Float32Array.from({length: 960}, (_, n) => Math.sin(n / 8) / 2);
      writer.write(new AudioData({
        format: "f32", sampleRate: 48000, numberOfFrames: 960, numberOfChannels: 1, timestamp, data,
      }));
      timestamp += 20000;
    }, 20);
    stream = new MediaStream([track]);
  } else {
    const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
    [canvas.width, canvas.height] = [64, 48];
    tick = setInterval(() => {
      pen.fillStyle = `hsl(${performance.now() % 360} 80% 50%)`;
      pen.fillRect(0, 0, 64, 48);
    }, 40);
    stream = canvas.captureStream(25);
  }
  const recorder = new MediaRecorder(stream), chunks = [];
  recorder.ondataavailable = (event) => event.data.size && chunks.push(event.data);
  const stopped = new Promise((done) => (recorder.onstop = done));
  recorder.start(500);
  const began = performance.now();
  const enough = setInterval(() => {
    if (!chunks.length || performance.now() - began < 1000) return;
    clearInterval(enough);
    recorder.stop();
  }, 50);
  await stopped;
  clearInterval(tick);
  return new File(chunks, name, {type: recorder.mimeType});
}

// What the browser knows of a file, and nothing more.
const ask = (f) =>
  call("POST", "/v1/assets/upload", {filename: f.name, contentType: f.type, size: f.size});

const confirm = (ticket) => call("POST", `/v1/assets/${ticket.assetId}/confirm`);

async function byFetch(f) {
  const ticket = await ask(f);
  const put = await fetch(ticket.uploadUrl, {method: "PUT", headers: ticket.headers, body: f});
  if (!put.ok) throw new Error(`PUT ${put.status}`);
  return [await confirm(ticket), {etag: put.headers.get("ETag")}];
}

async function byXhr(f) {
  const ticket = await ask(f), loaded = [];
  await new Promise((done, fail) => {
    const xhr = new XMLHttpRequest();
    xhr.upload.onprogress = (event) => loaded.push(event.loaded);
    xhr.onload = () => (xhr.status === 200 ? done() : fail(new Error(`PUT ${xhr.status}`)));
    xhr.onerror = () => fail(new Error("PUT failed"));
    xhr.open(ticket.method, ticket.uploadUrl);
    for (const [name, value] of Object.entries(ticket.headers)) xhr.setRequestHeader(name, value);
    xhr.send(f);
  });
  return [await confirm(ticket), {loaded}];
}

async function afterALongBreak(f) {
  const first = await ask(f);
  const fresh = await call("POST", `/v1/assets/${first.assetId}/upload-url`);
  await fetch(fresh.uploadUrl, {method: "PUT", headers: fresh.headers, body: f});
  return [await confirm(first), {same: fresh.assetId === first.assetId}];
}

async function byUppy(f) {
  const {Uppy, AwsS3} = await import("/uppy.min.mjs");
  const tickets = {}, loaded = [];
  const uppy = new Uppy();
  const sign = async (id) => {
    const ticket = (tickets[id] = await ask(uppy.getFile(id).data));
    return {method: ticket.method, url: ticket.uploadUrl, headers: ticket.headers, fields: {}};
  };
  uppy.use(AwsS3, {
    shouldUseMultipart: false,
    getUploadParameters: (added) => sign(added.id), // up to Uppy 5
    generateObjectKey: (added) => added.id, // from @uppy/aws-s3 6.2 on; 6.0 and 6.1 send no headers
    async signRequest({key}) {
      const {url, headers} = await sign(key);
      return {url, headers};
    },
  });
  uppy.on("upload-progress", (_, progress) => loaded.push(progress.bytesUploaded));
  uppy.addFile({name: f.name, type: f.type, data: f});
  const {successful, failed} = await uppy.upload();
  if (!successful.length) throw new Error(`Uppy: ${failed[0]?.error}`);
  return [await confirm(tickets[successful[0].id]), {loaded}];
}

// The server's own words for what is wrong must reach the page.
async function refused() {
  const known = await fetch(`${API}/v1/assets/ast_unknown`, {headers: json});
  const unknown = await fetch(`${API}/v1/assets/ast_unknown`);
  return {known: known.status, unknown: unknown.status, id: known.headers.get("X-Request-Id")};
}

async function upload(how, given) {
  try {
    const f = await file(given);
    const [asset, more] = await how(f);
    const download = await fetch(asset.downloadUrl);
    const bytes = new Uint8Array(await download.arrayBuffer());
    const sent = new Uint8Array(await f.arrayBuffer());
    return {
      status: asset.status, filename: asset.filename, contentType: asset.contentType,
      width: asset.width, height: asset.height, sent: f.type, type: download.headers.get("Content-Type"),
      same: bytes.length === sent.length && bytes.every((byte, n) => byte === sent[n]), ...more,
    };
  } catch (error) {
    return {error: String(error)};
  }
}

const found = {};
const ways = {byFetch, byXhr, afterALongBreak, byUppy};
for (const [name, how, given] of UPLOADS) found[name] = await upload(ways[how], given);
found.refused = await refused();
await fetch("/report", {method: "POST", body: JSON.stringify(found)});
