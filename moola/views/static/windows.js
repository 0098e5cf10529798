// Windows on one chart, one after the other: for a page that no kernel stands behind. Stands after chart.js, in one module with it.

const NOTHING = { labels: [], spans: [], probability: null, features: {} };

function openWindows(el, windows) {
  const place = node('b', { class: 'moola-place' }), words = node('div', { class: 'moola-words', role: 'status' });
  const menu = node('select', { 'aria-label': 'Window' }, ...windows.map((w, i) => node('option', { value: i }, w.name)));
  const stage = node('div', { class: 'moola-windows-stage' });
  const button = (text, title, by) => {
    const b = node('button', { type: 'button', title, 'aria-label': title }, text);
    b.addEventListener('click', () => go(at + by));
    return b;
  };
  const previous = button('‹', 'Previous window (←)', -1), next = button('›', 'Next window (→)', 1);
  const head = node('div', { class: 'moola-windows-head' }, previous, place, next, menu);
  const root = node('div', { class: 'moola-windows' }, head, words, stage);
  el.append(root);
  let at = 0;
  const keys = { ArrowLeft: () => go(at - 1), ArrowRight: () => go(at + 1), Home: () => go(0), End: () => go(windows.length - 1) };
  const key = e => {
    if (!(e.key in keys) || e.shiftKey || e.ctrlKey || e.metaKey || e.altKey || e.target.closest?.('select, input')) return false;
    e.preventDefault();
    keys[e.key]();
    return true;
  };
  const chart = openChart(stage, { ...NOTHING, ...windows[0].chart, height: '100%' },
    { key, theme: name => { root.dataset.theme = name; } });
  root.dataset.theme = chart.theme;
  function go(i) {
    if (i < 0 || i >= windows.length) return;
    const { chart: state, words: said } = windows[at = i];
    chart.set({ ...NOTHING, ...state, height: '100%' });
    place.textContent = `${i + 1} of ${windows.length}`;
    words.textContent = said;
    menu.value = i;
    previous.disabled = !i;
    next.disabled = i === windows.length - 1;
  }
  menu.addEventListener('change', () => go(Number(menu.value)));
  go(0);
  return { chart, go };
}
