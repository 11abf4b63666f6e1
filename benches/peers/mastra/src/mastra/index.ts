// An agent without tools. It calls the scripted model and stores its threads in LibSQL, Mastra's default store.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { Mastra } from '@mastra/core';
import { Agent } from '@mastra/core/agent';
import { LibSQLStore } from '@mastra/libsql';
import { Memory } from '@mastra/memory';

const model = createOpenAICompatible({
  name: 'scripted',
  baseURL: process.env.MODEL_BASE_URL ?? '',
  apiKey: 'scripted',
});

const storage = new LibSQLStore({ id: 'bench', url: process.env.STORAGE_URL ?? '' });

const ada = new Agent({
  id: 'ada',
  name: 'Ada',
  instructions: 'Be brief.',
  model: model('scripted'),
  memory: new Memory({ storage }),
});

export const mastra = new Mastra({ agents: { ada }, storage });
