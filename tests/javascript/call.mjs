// Calls functions of the scripts that need no page: one request a line, {file, name, given}, one answer a line.
import { createInterface } from "node:readline";

for await (const line of createInterface({ input: process.stdin })) {
  const { file, name, given } = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await import(file))[name](...given) };
  } catch (error) {
    answer = { error: error.message };
  }
  console.log(JSON.stringify(answer));
}
