// Package llm speaks with language models.
//
//	chat ──▶ Registry ──▶ Model ──HTTP──▶ an OpenAI-compatible server
//	                        │
//	chat ◀── Event, … ◀─────┘
//
// Model is the contract; chatCompletions is its one implementation so far, for
// any server that speaks Chat Completions. Registry knows which models there
// are: those of the configuration, the one of OPENAI_API_KEY, or what a server
// on loopback offers.
//
// What a server sends is foreign: lines, calls and whole answers are capped,
// and its words reach people only shortened, without control characters and
// without our key. Keys are in no error, log or Info.
//
// Source: OpenAI's Chat Completions reference, and what llama.cpp, Ollama,
// vLLM, Mistral and Gemini's compatible servers do differently.
package llm
