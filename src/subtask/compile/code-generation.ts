let allowed: boolean | undefined;

/** False under `--disallow-code-generation-from-strings`. Asked once per thread: it cannot change. */
export function allowsCodeGeneration(): boolean {
  allowed ??= probe();
  return allowed;
}

function probe(): boolean {
  try {
    return (new Function('return 1') as () => number)() === 1;
  } catch {
    // An EvalError is the answer to the question.
    return false;
  }
}
