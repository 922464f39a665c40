/**
 * How many objects, and entries of Maps, Sets and arrays, can be reached from `roots` over properties: what a
 * program keeps, counted the same way each time, where the heap's size depends on the garbage collector. What only
 * closures hold is not seen.
 */
export function countReachable(roots: readonly unknown[], except: readonly object[]): number {
  const seen = new Set<object>(except);
  const waiting: unknown[] = [...roots];
  let count = 0;
  const visit = (value: unknown) => {
    if ((typeof value !== 'object' && typeof value !== 'function') || value === null || seen.has(value)) return;
    seen.add(value);
    waiting.push(value);
  };
  for (const root of roots) if (typeof root === 'object' && root !== null) seen.add(root);
  for (let value = waiting.pop(); value !== undefined; value = waiting.pop()) {
    count++;
    if (ArrayBuffer.isView(value)) continue;
    if (value instanceof Map)
      for (const [key, item] of value) {
        count++;
        visit(key);
        visit(item);
      }
    else if (value instanceof Set)
      for (const item of value) {
        count++;
        visit(item);
      }
    if (Array.isArray(value)) count += value.length;
    for (const key of Reflect.ownKeys(value as object)) {
      const property = Reflect.getOwnPropertyDescriptor(value as object, key);
      if (property !== undefined && 'value' in property) visit(property.value);
    }
  }
  return count;
}
