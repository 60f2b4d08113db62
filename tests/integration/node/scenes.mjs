// Plays one scene with an official SDK at one address; says what the SDK made of every answer
// and what came over the wire, as JSON.
//
// node scenes.mjs SCENE ADDRESS KEY

import Anthropic from '@anthropic-ai/sdk';
import { GoogleGenAI } from '@google/genai';
import OpenAI, { toFile } from 'openai';

const [scene, address, key] = process.argv.slice(2);
const seen = [];

// Every SDK asks through this: what comes back is read twice, once by the SDK and once here.
const ask = globalThis.fetch;
globalThis.fetch = async (resource, init) => {
  const answer = await ask(resource, init);
  const target = new URL(typeof resource === 'string' ? resource : (resource.url ?? resource));
  // One SDK tries out what `fetch` can do on an address that leads nowhere.
  if (target.protocol === 'data:') return answer;
  const entry = {
    method: init?.method ?? resource.method ?? 'GET',
    target: target.pathname + target.search,
    status: answer.status,
    headers: [...answer.headers],
  };
  // An SDK that gives a stream up takes the other reader with it.
  const whole = (read) => Buffer.from(read).toString('base64');
  entry.body = answer.clone().arrayBuffer().then(whole, () => null);
  seen.push(entry);
  return answer;
};

async function all(stream) {
  const found = [];
  for await (const one of stream) found.push(one);
  return found;
}

async function raised(call) {
  try {
    await call();
  } catch (error) {
    return [error.constructor.name, error.status ?? null, error.message];
  }
  throw new Error('nothing was raised');
}

async function bytes(answer) {
  return Buffer.from(await answer.arrayBuffer()).toString('base64');
}

const WEATHER = {
  name: 'weather',
  description: 'Tell the weather.',
  parameters: { type: 'object', properties: { city: { type: 'string' } } },
};
const say = (content, more = {}) => ({
  model: 'stub-large',
  messages: [{ role: 'user', content }],
  ...more,
});
const picture = () =>
  toFile(Buffer.from('iVBORw0KGgo=', 'base64'), 'a.png', { type: 'image/png' });
const sound = () => toFile(Buffer.alloc(2000, 7), 'a.wav', { type: 'audio/wav' });

async function* openai() {
  const client = new OpenAI({ baseURL: address, apiKey: key, maxRetries: 0 });
  const chat = client.chat.completions;
  yield chat.create(say('What is a ledger?', { n: 2 }));
  yield chat.create(say('call weather for Bodø', { tools: [{ type: 'function', function: WEATHER }] }));
  yield all(await chat.create(say('Was heißt „Quittung“? 🧾', { stream: true })));
  const stream = chat.stream(say('What is a ledger?', { stream_options: { include_usage: true } }));
  yield all(stream);
  yield stream.finalChatCompletion();
  const schema = { type: 'object', properties: { vendor: { type: 'string' } } };
  const format = { type: 'json_schema', json_schema: { name: 'invoice', schema } };
  yield chat.parse(say('Read it.', { response_format: format }));

  const responses = client.responses;
  yield responses.create({ model: 'stub-reasoner', input: 'draw it', tools: [{ type: 'image_generation' }] });
  yield all(await responses.create({ model: 'stub-reasoner', input: 'Think.', stream: true }));
  let later = await responses.create({ model: 'stub-large', input: 'Later.', background: true });
  while (['queued', 'in_progress'].includes(later.status)) later = await responses.retrieve(later.id);
  yield later;
  yield all(await responses.retrieve(later.id, { stream: true, starting_after: 2 }));
  yield all(responses.inputItems.list(later.id));
  yield responses.delete(later.id);

  yield client.embeddings.create({ model: 'stub-small', input: ['a', 'b'] });
  yield client.moderations.create({ input: 'be kind' });
  yield all(client.models.list());
  yield client.images.generate({ model: 'gpt-image-1', prompt: 'a cat' });
  yield all(await client.images.generate({ model: 'gpt-image-1', prompt: 'a cat', stream: true, partial_images: 1 }));
  yield client.images.edit({ model: 'gpt-image-1', prompt: 'bluer', image: await picture() });
  yield bytes(await client.audio.speech.create({ model: 'tts-1', voice: 'alloy', input: 'Hello.' }));
  yield client.audio.transcriptions.create({ model: 'whisper-1', file: await sound() });
  yield all(await client.audio.transcriptions.create({ model: 'gpt-4o-transcribe', file: await sound(), stream: true }));

  const line = (at) =>
    JSON.stringify({ custom_id: `line-${at}`, method: 'POST', url: '/v1/chat/completions', body: say(`Question ${at}?`) });
  const lines = Buffer.from([0, 1, 2].map((at) => line(at) + '\n').join(''));
  const file = await client.files.create({ file: await toFile(lines, 'in.jsonl'), purpose: 'batch' });
  yield file;
  const asked = { input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' };
  let batch = await client.batches.create(asked);
  while (batch.status !== 'completed') batch = await client.batches.retrieve(batch.id);
  yield batch;
  yield bytes(await client.files.content(batch.output_file_id));
  yield all(client.files.list());
  const upload = { bytes: lines.length, filename: 'up.jsonl', mime_type: 'text/jsonl', purpose: 'user_data' };
  const begun = await client.uploads.create(upload);
  const part = await client.uploads.parts.create(begun.id, { data: await toFile(lines, 'up.jsonl') });
  yield client.uploads.complete(begun.id, { part_ids: [part.id] });
  yield client.files.delete(file.id);

  const made = await chat.create(say('Keep it.', { store: true }));
  yield all(chat.list());
  yield chat.retrieve(made.id);
  yield raised(() => chat.create(say('Hm?', { model: 'missing' })));
  const ending = { headers: { 'x-fake-script': JSON.stringify({ error_after: 3 }) } };
  yield raised(async () => all(await chat.create(say('Hm?', { stream: true }), ending)));
  const limited = { headers: { 'x-fake-script': JSON.stringify({ status: 429, retry_after: '0' }) } };
  yield raised(() => chat.create(say('Hm?'), { ...limited, maxRetries: 1 }));
}

async function* anthropic() {
  const client = new Anthropic({ baseURL: address, apiKey: key, maxRetries: 0 });
  const messages = client.messages;
  const asked = (content, more = {}) => say(content, { max_tokens: 4096, ...more });
  const thinking = { thinking: { type: 'enabled', budget_tokens: 1024 } };
  const tool = { name: 'weather', description: 'Tell the weather.', input_schema: WEATHER.parameters };
  const calls = [
    asked('What is a ledger?'),
    asked('Why is the sky blue?', thinking),
    asked('secret thoughts?', thinking),
    asked('call weather for Bodø', { tools: [tool] }),
    asked('search for it', { tools: [{ type: 'web_search_20250305', name: 'web_search' }] }),
    asked('refuse this'),
  ];
  for (const call of calls) {
    yield messages.create(call);
    yield all(await messages.create({ ...call, stream: true }));
    yield messages.stream(call).finalMessage();
  }
  yield messages.countTokens(say('one two three'));
  yield all(client.models.list());
  const requests = [0, 1, 2].map((at) => ({ custom_id: `line-${at}`, params: asked(`Question ${at}?`) }));
  let batch = await messages.batches.create({ requests });
  while (batch.processing_status !== 'ended') batch = await messages.batches.retrieve(batch.id);
  yield batch;
  yield all(await messages.batches.results(batch.id));
  yield all(messages.batches.list());
  const file = await client.files.upload({ file: await picture() });
  yield file;
  yield bytes(await client.files.download(file.id));
  yield client.files.delete(file.id);
  yield raised(() => messages.create(asked('Hm?', { model: 'missing' })));
  yield raised(async () => all(await messages.create({ ...asked('overload it'), stream: true })));
}

async function* gemini() {
  const client = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: address } });
  const model = 'stub-large';
  const calls = [
    { contents: 'What is a ledger?' },
    { contents: 'Why is the sky blue?', config: { thinkingConfig: { includeThoughts: true } } },
    { contents: 'call weather for Bodø', config: { tools: [{ functionDeclarations: [WEATHER] }] } },
    { contents: 'draw a cat', config: { responseModalities: ['TEXT', 'IMAGE'] } },
    { contents: 'block this' },
  ];
  for (const call of calls) {
    yield bare(await client.models.generateContent({ model, ...call }));
    yield (await all(await client.models.generateContentStream({ model, ...call }))).map(bare);
  }
  yield bare(await client.models.embedContent({ model: 'stub-small', contents: ['a', 'b'] }));
  yield bare(await client.models.countTokens({ model, contents: 'one two three' }));
  yield all(await client.models.list());
  const file = await client.files.upload({
    file: new Blob(['some notes'], { type: 'text/plain' }),
    config: { mimeType: 'text/plain', displayName: 'notes' },
  });
  yield file;
  yield bare(await client.files.get({ name: file.name }));
  yield all(await client.files.list());
  const src = [0, 1].map((at) => ({ contents: [{ role: 'user', parts: [{ text: `Question ${at}?` }] }] }));
  let batch = await client.batches.create({ model, src });
  while (batch.state !== 'JOB_STATE_SUCCEEDED') batch = await client.batches.get({ name: batch.name });
  yield bare(batch);
  const cache = await client.caches.create({ model, config: { contents: 'A long story.', ttl: '3600s' } });
  yield bare(cache);
  yield bare(await client.caches.delete({ name: cache.name }));
  yield raised(() => client.models.generateContent({ model: 'missing', contents: 'Hm?' }));
}

// What an answer carries of the wire is compared there.
function bare({ sdkHttpResponse, ...rest }) {
  return rest;
}

const told = [];
for await (const one of { openai, anthropic, gemini }[scene]()) told.push(one);
// What an SDK aborted may never come to its end.
const late = () => new Promise((settle) => setTimeout(settle, 2000, null));
for (const entry of seen) entry.body = await Promise.race([entry.body, late()]);
process.stdout.write(JSON.stringify({ told, seen }), () => process.exit(0));
