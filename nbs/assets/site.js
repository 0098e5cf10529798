// Search, ranked for a reference: the page of that name first, then the function of that name, then names that hold the words, then text that does.
if (window.Fuse) {
  const rank = (item, q) => {
    const title = item.title.toLowerCase(), section = (item.section || "").toLowerCase(), page = !section;
    const at = [
      page && title === q,
      section === q || section.endsWith("." + q),
      page && title.startsWith(q),
      page && title.includes(q),
      section.startsWith(q),
      section.includes(q),
      (item.text || "").toLowerCase().includes(q),
      title.includes(q)];
    return at.indexOf(true) < 0 ? at.length : at.indexOf(true);
  };
  window.Fuse = class extends window.Fuse {
    search(query, { limit = Infinity } = {}) {
      const q = String(query).trim().toLowerCase(), seen = new Set();
      const found = super.search(query).map((hit) => [rank(hit.item, q), hit]).sort((a, b) => a[0] - b[0]).map((pair) => pair[1]);
      return found.filter(({ item }) => {  // a heading and the signature under it are one place
        const key = (item.title + "\n" + (item.section || "")).toLowerCase();
        return !seen.has(key) && seen.add(key);
      }).slice(0, limit);
    }
  };
}

// A page opened from a disk may read scripts only, so there the search's index comes as one.
if (location.protocol === "file:") {
  const fetched = window.fetch;
  window.fetch = (url, ...rest) => !String(url).endsWith("search.json") ? fetched(url, ...rest) : new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = String(url) + ".js";
    script.onload = () => resolve({ ok: true, json: async () => window.searchIndex });
    script.onerror = reject;
    document.head.append(script);
  });
}
