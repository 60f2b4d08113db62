// One session of an official SDK for Node: `node live.mjs KIND ADDRESS KEY`; its events as JSON.

import { GoogleGenAI, Modality } from "@google/genai";
import OpenAI from "openai";
import { OpenAIRealtimeWebSocket } from "openai/realtime/websocket";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import WebSocket from "ws";

const [kind, address, key] = process.argv.slice(2);

// What browsers have, and Node only from version 22 on.
globalThis.WebSocket ??= WebSocket;

function realtime(Talking, options) {
  const client = new OpenAI({ apiKey: key, baseURL: address, ...options });
  const talking = new Talking({ model: "gpt-realtime", ...options }, client);
  const events = [];
  return new Promise((resolve, reject) => {
    talking.on("error", reject);
    talking.on("event", (event) => {
      events.push(event);
      if (event.type === "session.created") {
        const content = [{ type: "input_text", text: "hello" }];
        const item = { type: "message", role: "user", content };
        talking.send({ type: "conversation.item.create", item });
        talking.send({ type: "response.create" });
      } else if (event.type === "response.done") {
        talking.close();
        resolve(events);
      }
    });
  });
}

async function google() {
  const client = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: address } });
  const events = [];
  let ended;
  const end = new Promise((resolve, reject) => (ended = { resolve, reject }));
  const session = await client.live.connect({
    model: "gemini-live",
    config: { responseModalities: [Modality.AUDIO] },
    callbacks: {
      onerror: (error) => ended.reject(error),
      onclose: () => ended.resolve(),
      onmessage: (message) => {
        events.push(message);
        if (message.serverContent?.turnComplete) ended.resolve();
      },
    },
  });
  const turns = [{ role: "user", parts: [{ text: "hello" }] }];
  session.sendClientContent({ turns, turnComplete: true });
  await end;
  session.close();
  return events;
}

const talks = {
  server: () => realtime(OpenAIRealtimeWS, {}),
  browser: () => realtime(OpenAIRealtimeWebSocket, { dangerouslyAllowBrowser: true }),
  google,
};
process.stdout.write(JSON.stringify(await talks[kind]()));
