/** "did you mean": the nearest of some known words (Damerau-Levenshtein, optimal string alignment). */

function distance(a: string, b: string): number {
  let twoAgo: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const current = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1];
      let best = Math.min(previous[j]! + 1, current[j - 1]! + 1, previous[j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, twoAgo[j - 2]! + 1);
      current.push(best);
    }
    twoAgo = previous;
    previous = current;
  }
  return previous[b.length]!;
}

/** The known word that a typing slip most likely meant; undefined when none is near (a third of its letters at most). */
export function nearest(word: string, known: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  const wanted = word.slice(0, 100).toLowerCase();
  for (const candidate of known) {
    const away = distance(wanted, candidate.toLowerCase());
    if (away < bestDistance && away <= Math.max(1, Math.floor(Math.max(candidate.length, wanted.length) / 3))) {
      best = candidate;
      bestDistance = away;
    }
  }
  return best;
}

/** A hint sentence for an unknown word: the nearest known one, else all of them when they are few. */
export function didYouMean(word: string, known: readonly string[]): string | undefined {
  const near = nearest(word, known);
  if (near !== undefined) return `did you mean '${near}'?`;
  return known.length > 0 && known.length <= 20 ? `known: ${known.join(', ')}` : undefined;
}
