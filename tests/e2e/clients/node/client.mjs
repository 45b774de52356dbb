// Unmodified `@livekit/agents` clients, driven from outside: a JSON object a line in, one out.
//
//   {"do": "chat" | "say" | "hear", "model": ..., ...}
//
// Address and credentials come from the environment alone, as in an agent. A failure is an answer
// like any other, with what the library said; only what the library does not catch ends the process.

import { inference, initializeLogger, llm, stt } from '@livekit/agents';
import { AudioFrame } from '@livekit/rtc-node';
import { createInterface } from 'node:readline';

initializeLogger({ pretty: false, level: 'silent' });

const connOptions = { maxRetry: 1, retryIntervalMs: 50, timeoutMs: 10_000 };
const voices = new Map();

function watched(service) {
  const errors = [];
  service.on('error', ({ error, recoverable }) =>
    errors.push({ name: error.name, status: error.statusCode, recoverable, message: error.message }),
  );
  return errors;
}

const book = llm.tool({
  name: 'book',
  description: 'Book a room.',
  parameters: { type: 'object', properties: { room: { type: 'number' } }, required: ['room'] },
  execute: async () => 'done',
});

/** A chat; `cut` leaves it after that many chunks with text. */
async function chat({ model, text, tools = false, cut = 0 }) {
  const brain = new inference.LLM({ model });
  const errors = watched(brain);
  const chatCtx = llm.ChatContext.empty();
  chatCtx.addMessage({ role: 'user', content: text });
  const toolCtx = tools ? new llm.ToolContext([book]) : undefined;
  const stream = brain.chat({ chatCtx, toolCtx, connOptions });
  const said = { text: '', calls: [], usage: null, errors };
  let pieces = 0;
  for await (const chunk of stream) {
    said.text += chunk.delta?.content ?? '';
    said.calls.push(...(chunk.delta?.toolCalls ?? []).map(({ name, args }) => ({ name, args })));
    said.usage = chunk.usage ?? said.usage;
    pieces += chunk.delta?.content ? 1 : 0;
    if (cut && pieces >= cut) break;
  }
  stream.close();
  return said;
}

/**
 * An utterance on the pooled connection of that voice; `cut` leaves it after that much audio.
 * `options` change the voice before, and for good.
 */
async function say({ model, sentences, cut = 0, options }) {
  if (!voices.has(model)) voices.set(model, new inference.TTS({ model, sampleRate: 24_000 }));
  const voice = voices.get(model);
  if (options) voice.updateOptions(options);
  const errors = watched(voice);
  const stream = voice.stream({ connOptions });
  for (const sentence of sentences) stream.pushText(`${sentence} `);
  stream.endInput();
  const pcm = [];
  let seconds = 0;
  for await (const audio of stream) {
    if (typeof audio === 'symbol') break;
    const { data, sampleRate } = audio.frame;
    pcm.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    seconds += data.length / sampleRate;
    if (cut && seconds >= cut) break;
  }
  stream.close();
  return { pcm: Buffer.concat(pcm).toString('base64'), seconds, errors };
}

function push(stream, pcm, rate) {
  const bytes = Buffer.from(pcm, 'base64');
  const samples = new Int16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  const step = rate / 20;
  for (let at = 0; at < samples.length; at += step) {
    const piece = samples.slice(at, at + step);
    stream.pushFrame(new AudioFrame(piece, rate, 1, piece.length));
  }
}

/**
 * Audio at `rate`, as fast as it goes, and the transcripts that come of it; `cut` hangs up on the
 * first of them, with the input still open. On the first final the stream is told the `language` of
 * the audio `then`, which follows.
 */
async function hear({ model, pcm, rate, cut = false, then = '', language }) {
  const ears = new inference.STT({ model, sampleRate: rate });
  const errors = watched(ears);
  const stream = ears.stream({ connOptions });
  push(stream, pcm, rate);
  if (!cut && !then) stream.endInput();
  const heard = { finals: [], interims: 0, errors };
  for await (const event of stream) {
    if (event.type === stt.SpeechEventType.FINAL_TRANSCRIPT) {
      heard.finals.push(event.alternatives[0].text);
      if (then) {
        ears.updateOptions({ language });
        push(stream, then, rate);
        stream.endInput();
        then = '';
      }
    }
    if (event.type === stt.SpeechEventType.INTERIM_TRANSCRIPT) heard.interims += 1;
    if (cut && (heard.interims || heard.finals.length)) break;
  }
  stream.close();
  await ears.close();
  return heard;
}

const does = { chat, say, hear };

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const answer = await does[asked.do](asked);
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
for (const voice of voices.values()) await voice.close();
process.exit(0);
