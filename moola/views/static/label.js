// The bench: a chart on which windows are labelled, one after the other. Stands after chart.js, in one module with it.
// Every change is drawn at once and goes into a queue; Python saves it and answers with what the file then holds.

const BENCH_TYPES = { c: 'consolidation', r: 'retracement' }, QUALITIES = ['A', 'B', 'C', 'D'];
const REACH = 6;          // pixels from an edge at which it can be taken hold of
const BEFORE = 40, AFTER = 20; // bars of context on screen
const BENCH_KEYS = [
  ['drag', 'mark a span; an edge: mend it; outside the window: pan'], ['click, click', 'first and last bar of a span'],
  ['← →', 'move by a bar, with Shift by ten'], ['Space', 'first and last bar, at the crosshair'],
  ['[ ] { }', 'first bar, last bar: one to the left or right'], ['C R', 'consolidation, retracement'],
  ['Shift+A … D, 1 … 4', 'quality'], ['E', 'note'], ['N', 'nothing here'], ['Del', 'remove the span'],
  ['Z, Shift+Z', 'undo, redo'], ['↓ ↑', 'next, previous window'], ['Enter', 'next open window'], ['S', 'skip'],
  ['H', 'show or hide suggestions'], ['T X', 'take over, dismiss a suggestion'],
  ['L', 'look-alikes of the span; again: the next one'], ['K', 'check the labels; again: the next finding'],
  ['F', 'the whole window'],
];

const hex = b => b.toString(16).padStart(2, '0');
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), hex).join('');
const overlap = ([a, b], [c, d]) => a < d && c < b;
const EMPTY = { first: null, last: null, label: null, quality: null, note: null, dismissed: null };
const limit = (x, low, high) => Math.max(low, Math.min(high, x));

class MoolaBench {
  // `send(message)` gives a promise of Python's answer.
  constructor(el, state, send) {
    Object.assign(this, { el, send, queue: [], pending: null, selected: null, showing: false, suggestions: null,
      alike: [], findings: [], looking: null, kind: 'consolidation', skipped: new Set(), undo: [], ...state });
    this.layOut();
    const on = (target, name, f) => {
      target.addEventListener(name, f, true);
      this.undo.push(() => target.removeEventListener(name, f, true));
    };
    // Before the chart's own listener, and before the notebook's shortcuts.
    on(window, 'keydown', e => {
      if (!(e.target instanceof Element && this.root.contains(e.target)) || !this.key(e)) return;
      e.preventDefault();
      e.stopImmediatePropagation();
    });
    on(window, 'beforeunload', e => { if (this.queue.length) e.preventDefault(); });
    on(window, 'focus', e => { if (e.target === window && !this.queue.length) this.post({ do: 'read' }); });
    on(this.stage, 'pointermove', e => { this.stage.style.cursor = this.edgeAt(e) ? 'ew-resize' : ''; });
    this.chart = openChart(this.stage, { ...state.chart, height: '100%' }, {
      grab: (e, row) => this.grab(e, row), jump: row => this.jumped(row), theme: t => { this.root.dataset.theme = t; },
    });
    this.root.dataset.theme = this.chart.theme;
    this.go(state.at);
    this.root.style.height = typeof state.height === 'number' ? `${state.height}px` : state.height;
  }

  layOut() {
    const button = (name, text, title, act, key) => {
      const b = node('button', { type: 'button', title, 'aria-label': title, 'data-do': name }, text);
      if (key) b.append(node('kbd', {}, key));
      b.addEventListener('click', e => { act(); if (e.detail) this.focus(); });
      return b;
    };
    this.place = node('b', { class: 'moola-place' });
    this.when = node('span', { class: 'moola-when' });
    this.count = node('span', { class: 'moola-count' });
    this.meter = node('i');
    this.saved = node('span', { class: 'moola-saved', role: 'status' });
    const head = node('div', { class: 'moola-bench-head' },
      button('previous', '‹', 'Previous window (↑)', () => this.step(-1)), this.place,
      button('next', '›', 'Next window (↓)', () => this.step(1)), this.when, node('span', { class: 'moola-room' }),
      this.count, node('span', { class: 'moola-meter' }, this.meter));
    this.stage = node('div', { class: 'moola-bench-stage' });
    this.cards = node('div', { class: 'moola-cards' });
    this.hint = node('span', { class: 'moola-hint', role: 'status' });
    this.tools = node('div', { class: 'moola-tools' },
      button('open', 'Next open', 'Next window without a label (Enter)', () => this.open(), '⏎'),
      button('nothing', 'Nothing here', 'This window has no expansion (N)', () => this.nothing(), 'N'),
      button('skip', 'Skip', 'Leave this window out for now (S)', () => this.skip(), 'S'),
      node('span', { class: 'moola-gap' }),
      button('undo', 'Undo', 'Undo (Z)', () => this.post({ do: 'undo' }), 'Z'),
      button('redo', 'Redo', 'Redo (Shift+Z)', () => this.post({ do: 'redo' }), '⇧Z'),
      node('span', { class: 'moola-room' }), this.take = node('span', { class: 'moola-take' },
        button('take', 'Take over', 'Take the suggestion over (T)', () => this.takeOver(), 'T'),
        button('dismiss', 'Dismiss', 'The suggestion is wrong: nothing here (X)', () => this.dismiss(), 'X')),
      this.like = button('alike', 'Look-alikes', 'Look-alikes of the selected span (L)', () => this.lookAlike(), 'L'),
      button('check', 'Check', 'What deserves a second look in the file (K)', () => this.check(), 'K'),
      this.toggle = button('suggest', 'Suggestions', 'Show or hide suggestions (H)', () => this.suggest(), 'H'),
      button('keys', '?', 'Keys (?)', () => this.help()));
    this.sheet = node('dl', { class: 'moola-sheet', hidden: '' },
      ...BENCH_KEYS.flatMap(([k, words]) => [node('dt', {}, k), node('dd', {}, words)]));
    this.root = node('div', { class: 'moola-bench' }, head, this.stage,
      node('div', { class: 'moola-said' }, this.hint, node('span', { class: 'moola-room' }), this.saved),
      this.cards, this.found = node('div', { class: 'moola-found', hidden: '' }),
      this.health = node('div', { class: 'moola-health', hidden: '' }), this.tools, this.sheet);
    this.toggle.style.display = this.suggests ? '' : 'none';
    this.like.style.display = this.alikes ? '' : 'none';
    this.el.append(this.root);
  }

  focus() { this.chart.root.focus({ preventScroll: true }); }

  // -- windows, rows and spans; a row's first and last bar count in its window, a span's in the chart

  get start() { return this.windows[this.at]; }
  get frame() { return [this.start, this.start + this.width]; }
  inside(row) { return row >= this.start && row < this.start + this.width; }
  rowsOf(w) { return this.rows.filter(r => r.w === w); }
  marks(w = this.at) { return this.rowsOf(w).filter(r => r.first !== null).sort((p, q) => p.first - q.first); }
  spanOf(r) { return [this.windows[r.w] + r.first, this.windows[r.w] + r.last + 1]; }
  gone(r) { return r.dismissed.map((x, i) => this.windows[r.w] + x + i); }
  row(id) { return this.rows.find(r => r.id === id); }

  // Suggestions that are neither labelled nor dismissed.
  get openSuggestions() {
    const seen = [...this.alike, ...(this.showing && this.suggestions) || []];
    const known = this.rows.filter(r => r.first !== null).map(r => this.spanOf(r));
    const dismissed = this.rows.filter(r => r.dismissed).map(r => this.gone(r));
    return seen.filter((s, i) => !this.alike.some((t, k) => k < i && overlap(t.span, s.span)) && ![...known, ...dismissed].some(k => overlap(k, s.span)));
  }

  get suggestion() { return this.openSuggestions.find(s => overlap(s.span, this.frame)); }

  clip([a, b]) { const [low, high] = this.frame; return [limit(a, low, high - 1), limit(b, low + 1, high)]; }

  // -- moves

  go(w, look = true) {
    if (!(w >= 0 && w < this.windows.length)) return;
    this.at = w;
    this.pending = null;
    const own = this.marks();
    this.selected = own.length === 1 ? own[0].id : null;
    this.chart.pick(null);
    this.paint();
    if (look) this.look();
  }

  // To a window by its id, as a link names it.
  goTo(name) {
    const w = this.names.indexOf(name);
    if (w >= 0) this.go(w);
    else if (name) this.say(`There is no window ${name} here`);
  }

  look() {
    const [a, b] = this.frame;
    this.lone ? this.chart.show(a, b) : this.chart.show(a - BEFORE, b + AFTER);
    // The library fits prices in the frame after the one that moves.
    requestAnimationFrame(() => requestAnimationFrame(() => this.chart.point(a + (this.width >> 1))));
  }

  step(by) { this.go(limit(this.at + by, 0, this.windows.length - 1)); }

  // The next window that is neither labelled nor skipped, from here on and then from the beginning.
  open() {
    const done = new Set(this.rows.map(r => r.w)), n = this.windows.length;
    for (let k = 1; k <= n; k++) {
      const w = (this.at + k) % n;
      if (!done.has(w) && !this.skipped.has(w)) return this.go(w);
    }
    this.say(this.skipped.size ? 'Every window is labelled or skipped' : 'Every window is labelled');
  }

  skip() { this.skipped.add(this.at); this.open(); }

  // To the window that holds a bar, or begins nearest.
  jumped(row) {
    if (this.inside(row)) return;
    let best = 0;
    this.windows.forEach((a, w) => {
      const away = x => Math.abs(this.windows[x] + this.width / 2 - row);
      if (away(w) < away(best)) best = w;
    });
    this.go(best, !(row >= this.windows[best] && row < this.windows[best] + this.width));
    if (!this.inside(row)) return;
    this.look();
    requestAnimationFrame(() => requestAnimationFrame(() => this.chart.point(row)));
  }

  // -- changes: drawn at once, then queued

  add([a, b], more = {}) {
    const first = a - this.start, last = b - 1 - this.start;
    const plain = this.rowsOf(this.at).find(r => r.first === null && !r.dismissed);
    const values = { label: this.kind, ...more, first, last }, id = plain?.id ?? newId();
    const fresh = { id, w: this.at, quality: null, note: null, dismissed: null };
    this.rows = [...this.rows.filter(r => r.id !== id), { ...fresh, ...plain, ...values }];
    this.selected = id;
    this.post(plain ? { do: 'change', id, values } : { do: 'add', id, w: this.at, values });
  }

  change(id, values) {
    const r = this.row(id);
    if (!r || Object.entries(values).every(([k, v]) => r[k] === v)) return;
    Object.assign(r, values);
    this.post({ do: 'change', id, values });
  }

  remove(id) {
    if (!this.row(id)) return;
    this.rows = this.rows.filter(r => r.id !== id);
    if (this.selected === id) this.selected = null;
    this.post({ do: 'remove', id });
  }

  nothing() {
    const mine = this.rowsOf(this.at).filter(r => !r.dismissed), id = mine[0]?.id ?? newId();
    if (mine.length === 1 && mine[0].first === null) return;
    const row = { ...EMPTY, id, w: this.at, note: mine[0]?.note ?? null };
    this.rows = [...this.rows.filter(r => !mine.includes(r)), row];
    this.selected = null;
    this.post({ do: 'nothing', id, w: this.at });
  }

  setType(kind) {
    this.kind = kind;
    if (this.row(this.selected)?.first != null) this.change(this.selected, { label: kind });
    else this.say(`The next span is a ${kind}`);
  }

  setQuality(q) {
    const r = this.row(this.selected);
    if (r) this.change(r.id, { quality: r.quality === q ? null : q });
    else this.say('Select a span first: click it');
  }

  nudge(side, by) {
    const r = this.row(this.selected);
    if (r?.first == null) return;
    if (side === 'first') this.change(r.id, { first: limit(r.first + by, 0, r.last) });
    else this.change(r.id, { last: limit(r.last + by, r.first, this.width - 1) });
  }

  // -- suggestions

  async suggest() {
    if (!this.suggests) { this.say('There is no model to suggest anything: name one when the bench is started'); return; }
    this.showing = !this.showing;
    this.paint();
    if (!this.showing || this.suggestions) return;
    const answer = await this.find({ do: 'suggest' }, 'Looking for suggestions …');
    if (answer) this.suggestions = answer.suggestions;
    else this.showing = false;
    this.paint();
  }

  // What Python looks for goes beside the queue, so that saving does not wait. Null where nothing came.
  async find(message, words) {
    if (this.looking) { this.say(this.looking); return null; }
    this.say(this.looking = words);
    let answer = null, problem = '';
    try {
      answer = await this.send({ ...message, key: newId() });
      if (answer.error) { problem = answer.error; answer = null; }
    } catch (e) { problem = e.message; }
    this.looking = null;
    this.say(problem);
    return answer;
  }

  // Look-alikes of the selected span, or the next of those that were found.
  async lookAlike() {
    if (!this.alikes) return;
    const r = this.row(this.selected), span = r?.first != null ? this.spanOf(r) : null;
    if (!span || this.likeOf === r.id) {
      if (this.alike.length) this.goAlike(((this.alikeAt ?? -1) + 1) % this.alike.length);
      else this.say('Select a span first: click it');
      return;
    }
    const answer = await this.find({ do: 'similar', first: span[0], last: span[1] - 1 }, 'Looking for look-alikes …');
    if (!answer) return;
    Object.assign(this, { alike: answer.alike, alikeAt: null, likeOf: r.id, likeLabel: r.label });
    for (const s of this.alike) s.label = r.label;
    this.say(this.alike.length ? '' : 'There is nothing like it');
    this.paint();
  }

  goAlike(i) {
    const [a, b] = this.alike[this.alikeAt = i].span, shared = w => Math.min(b, w + this.width) - Math.max(a, w);
    let best = 0;
    this.windows.forEach((w, k) => { if (shared(w) > shared(this.windows[best])) best = k; });
    if (shared(this.windows[best]) < 1) { this.say('That span lies in no window'); this.paint(); return; }
    this.go(best);
    this.selected = null;
    this.paint();
  }

  paintFound() {
    this.found.hidden = !this.alike.length;
    if (this.found.hidden) return;
    const known = this.rows.filter(r => r.first !== null).map(r => this.spanOf(r));
    const chips = this.alike.map((s, i) => {
      const title = `${this.chart.barWords(s.span[0])}, distance ${s.distance}`;
      const b = node('button', { type: 'button', title, 'aria-pressed': String(i === this.alikeAt) },
        `${i + 1} ${s.way === 'mirrored' ? '⇅' : ''}`);
      if (known.some(k => overlap(k, s.span))) b.classList.add('moola-known');
      b.addEventListener('click', e => { this.goAlike(i); if (e.detail) this.focus(); });
      return b;
    });
    const close = node('button', { type: 'button', title: 'Forget the look-alikes', 'aria-label': 'Forget the look-alikes' }, '✕');
    close.addEventListener('click', e => {
      Object.assign(this, { alike: [], likeOf: null });
      this.paint();
      if (e.detail) this.focus();
    });
    this.found.replaceChildren(node('span', {}, 'Look-alikes, the nearest first'), ...chips, close);
  }

  // -- findings of the check; each is a link to its window

  async check() {
    if (this.findings.length) { this.goFinding(((this.findingAt ?? -1) + 1) % this.findings.length); return; }
    const answer = await this.find({ do: 'check' }, 'Checking the labels …');
    if (!answer) return;
    Object.assign(this, { findings: answer.findings, findingAt: null });
    this.say([this.findings.length ? '' : 'Nothing to look at again', answer.left_out].filter(Boolean).join('; '));
    this.paintHealth();
  }

  goFinding(i) {
    const { w, first, last } = this.findings[this.findingAt = i];
    if (w === null) this.say('That window is not among these bars');
    else {
      this.go(w);
      if (first !== null) this.see(w, first, last);
    }
    this.paintHealth();
    this.health.querySelector('[aria-current="true"]')?.scrollIntoView({ block: 'nearest' });
  }

  // Bars of a window, marked; the label that they touch is selected.
  see(w, first, last) {
    const span = [this.windows[w] + first, this.windows[w] + last + 1];
    this.selected = this.marks(w).find(r => overlap(this.spanOf(r), span))?.id ?? null;
    this.paint();
    this.chart.pick(span);
  }

  paintHealth() {
    this.health.hidden = !this.findings.length;
    const link = (f, i) => {
      const bars = f.first === null ? '' : `, bars ${f.first}–${f.last}`, at = f.w === null ? f.name : `window ${f.w + 1}`;
      const sure = f.score === null ? '' : ` (${f.score.toFixed(2)})`;
      const a = node('a', { href: `#window=${encodeURIComponent(f.name)}`, title: f.name, 'aria-current': String(i === this.findingAt) },
        node('b', {}, at + bars), ` ${f.what}${sure}`);
      a.addEventListener('click', e => { e.preventDefault(); this.goFinding(i); if (e.detail) this.focus(); });
      return a;
    };
    const close = node('button', { type: 'button', title: 'Close the list', 'aria-label': 'Close the list' }, '✕');
    close.addEventListener('click', e => { this.findings = []; this.paintHealth(); this.chart.pick(null); if (e.detail) this.focus(); });
    const many = this.findings.length === 1 ? '1 finding' : `${this.findings.length} findings`;
    this.health.replaceChildren(node('div', {}, node('span', {}, `${many}: each leads to its window`), node('span', { class: 'moola-room' }), close),
      ...this.findings.map(link));
  }

  takeOver(s = this.suggestion, span = s?.span) {
    if (!s) return;
    this.add(this.clip(span), s.label ? { label: s.label } : {});
    if (this.alike.includes(s)) this.likeOf = this.selected; // L goes on to the next one
  }

  dismiss(s = this.suggestion) {
    if (!s) return;
    const [a, b] = this.clip(s.span), dismissed = [a - this.start, b - 1 - this.start], id = newId();
    const row = { ...EMPTY, id, w: this.at, dismissed };
    this.rows = [...this.rows, row];
    this.post({ do: 'dismiss', id, w: this.at, bars: dismissed });
  }

  // -- the queue: one message at a time, in order, again and again until it is answered

  post(message) {
    this.queue.push({ ...message, key: newId() });
    this.paint();
    if (!this.busy) this.work();
  }

  async work() {
    this.busy = true;
    while (this.queue.length && !this.closed) {
      this.told();
      try {
        const answer = await this.send(this.queue[0]);
        if (answer.again) throw new Error(answer.error);
        this.queue.shift();
        this.failed = answer.error ?? '';
        this.settle(answer);
      } catch (problem) {
        this.failed = `Not saved: ${problem.message}`;
        this.told();
        await new Promise(r => setTimeout(r, 1500));
      }
    }
    this.busy = false;
    this.told();
  }

  settle(answer) {
    if (answer.can) this.can = answer.can;
    if (this.queue.length || this.dragging) return;
    if (answer.rows) this.rows = answer.rows;
    if (answer.at != null && answer.at !== this.at) this.go(answer.at);
    if (!this.row(this.selected)) { const own = this.marks(); this.selected = own.length === 1 ? own[0].id : null; }
    this.paint();
  }

  told() {
    const n = this.queue.filter(m => m.do !== 'read').length;
    this.saved.textContent = this.failed || (n ? 'Saving …' : `Saved in ${this.file}`);
    this.saved.classList.toggle('moola-wrong', Boolean(this.failed));
    for (const name of ['undo', 'redo']) this.tools.querySelector(`[data-do=${name}]`).disabled = !this.can[name] && !n;
  }

  say(words) { this.words = words; this.paintHint(); }

  // -- the mouse

  edgeAt({ clientX, clientY }) {
    if (!this.chart?.onBars({ clientX, clientY })) return null;
    const scale = this.chart.chart.timeScale(), half = scale.options().barSpacing / 2;
    const x = clientX - this.stage.getBoundingClientRect().left, found = [];
    const see = (span, what) => span.forEach((k, i) => {
      const away = Math.abs(scale.logicalToCoordinate(k) - half - x);
      // A span may be marked from the first bar of a suggestion on: there only the boundary itself is an edge.
      const near = away <= Math.min(what.suggestion ? half * .8 : REACH, (span[1] - span[0]) * half);
      if (!near || k < this.start || k > this.start + this.width) return;
      found.push({ away: away - (what.id === this.selected), side: i, span, ...what });
    });
    for (const r of this.marks()) see(this.spanOf(r), { id: r.id });
    for (const s of this.openSuggestions) if (overlap(s.span, this.frame)) see(s.span, { suggestion: s });
    return found.sort((p, q) => p.away - q.away)[0] ?? null;
  }

  grab(e, row) {
    if (e.shiftKey) return null;
    this.say('');
    const edge = this.edgeAt(e);
    if (edge) return this.mend(edge);
    return this.inside(row) ? this.mark(row, e.clientX) : null;
  }

  mark(first, x) {
    let dragged = false;
    const to = row => limit(row, this.start, this.start + this.width - 1);
    const range = (a, row) => [Math.min(a, to(row)), Math.max(a, to(row)) + 1];
    return {
      move: (row, m) => {
        dragged ||= Math.abs(m.clientX - x) > 4;
        if (dragged) { this.pending = null; this.chart.pick(range(first, row)); this.paintHint(range(first, row)); }
        this.chart.point(to(row));
      },
      end: row => { if (!dragged) return this.click(first); this.chart.pick(null); this.add(range(first, row)); },
    };
  }

  // The first click sets one end, the second the other; on a span it selects.
  click(row) {
    if (this.pending !== null) {
      const span = [Math.min(this.pending, row), Math.max(this.pending, row) + 1];
      this.pending = null;
      this.chart.pick(null);
      return this.add(span);
    }
    const hit = this.marks().find(r => overlap(this.spanOf(r), [row, row + 1]));
    if (hit) this.selected = hit.id;
    else { this.pending = row; this.selected = null; this.chart.pick([row, row + 1]); }
    this.paint();
  }

  mend({ id, suggestion, side, span: [a, b] }) {
    const [low, high] = this.frame;
    let now = null;
    this.selected = id ?? null;
    this.dragging = true;
    const show = () => {
      if (suggestion) return this.chart.pick(now);
      Object.assign(this.row(id), { first: now[0] - this.start, last: now[1] - 1 - this.start });
      this.paintChart();
    };
    return {
      move: (row, m) => {
        const k = this.chart.boundaryAt(m.clientX);
        now = side ? [Math.max(a, low), limit(k, a + 1, high)] : [limit(k, low, b - 1), Math.min(b, high)];
        show();
        this.paintHint(now);
      },
      end: () => {
        this.dragging = false;
        if (!now || (now[0] === a && now[1] === b)) return this.paint();
        if (suggestion) { this.chart.pick(null); return this.takeOver(suggestion, now); }
        this.post({ do: 'change', id, values: { first: now[0] - this.start, last: now[1] - 1 - this.start } });
      },
    };
  }

  // -- keys

  key(e) {
    const typing = e.target.closest('input, textarea, select'), pressed = e.target.closest('button');
    if (typing) {
      if (!this.cards.contains(typing) || !['Escape', 'Enter'].includes(e.key)) return false;
      typing.blur();
      this.focus();
      return true;
    }
    if (pressed && (e.key === ' ' || e.key === 'Enter')) return false;
    if (e.altKey || ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() !== 'z')) return false;
    const shift = e.shiftKey, name = e.key.length === 1 ? e.key.toLowerCase() : e.key;
    const quality = QUALITIES.indexOf(name.toUpperCase());
    const act = shift && quality >= 0 ? () => this.setQuality(QUALITIES[quality]) : {
      ArrowLeft: () => this.walk(shift ? -10 : -1), ArrowRight: () => this.walk(shift ? 10 : 1),
      ArrowDown: () => this.step(1), ArrowUp: () => this.step(-1),
      PageDown: () => this.step(1), PageUp: () => this.step(-1),
      ' ': () => { this.say(''); this.click(this.cursor); }, Enter: () => this.open(),
      s: () => this.skip(), n: () => this.nothing(),
      c: () => this.setType('consolidation'), r: () => this.setType('retracement'),
      1: () => this.setQuality('A'), 2: () => this.setQuality('B'),
      3: () => this.setQuality('C'), 4: () => this.setQuality('D'),
      z: () => this.post({ do: shift ? 'redo' : 'undo' }),
      '[': () => this.nudge('first', -1), ']': () => this.nudge('first', 1),
      '{': () => this.nudge('last', -1), '}': () => this.nudge('last', 1), f: () => this.look(), e: () => this.write(),
      Delete: () => this.remove(this.selected), Backspace: () => this.remove(this.selected),
      h: () => this.suggest(), l: () => this.lookAlike(), k: () => this.check(), t: () => this.takeOver(), x: () => this.dismiss(), '?': () => this.help(),
      Escape: () => this.escape(),
    }[name];
    if (!act) return false;
    act();
    return true;
  }

  get cursor() { const row = this.chart.hovered; return this.inside(row) ? row : this.start + (this.width >> 1); }

  walk(by) {
    const row = limit(this.cursor + by, this.start, this.start + this.width - 1), [a, b] = this.chart.seen();
    if (row < a || row > b - 1) this.look();
    this.chart.point(row);
    if (this.pending !== null) this.chart.pick([Math.min(this.pending, row), Math.max(this.pending, row) + 1]);
  }

  escape() {
    if (!this.sheet.hidden) return this.help();
    this.pending = this.selected = null;
    this.chart.pick(null);
    this.say('');
    this.paint();
  }

  help() { this.sheet.hidden = !this.sheet.hidden; }
  write() { (this.cards.querySelector('.moola-held input') ?? this.cards.querySelector('input'))?.focus(); }

  // -- what is seen

  paint() {
    if (!this.chart) return;
    this.paintChart();
    this.paintHead();
    this.paintHint();
    this.paintCards();
    this.paintFound();
    this.told();
  }

  paintChart() {
    const spans = this.rows.filter(r => r.first !== null), held = this.row(this.selected);
    this.chart.set({ frame: this.frame, offered: this.suggestion ? [this.suggestion.span] : [], labels: spans.filter(r => r !== held).map(r => this.spanOf(r)),
      held: held?.first != null ? [this.spanOf(held)] : [], spans: this.openSuggestions.map(s => s.span) });
  }

  paintHead() {
    const n = this.windows.length, done = new Set(this.rows.map(r => r.w)), [a, b] = this.frame;
    const marked = new Set(this.rows.filter(r => r.first !== null).map(r => r.w)), empty = done.size - marked.size;
    this.place.textContent = `Window ${this.at + 1} of ${n.toLocaleString('en')}`;
    this.when.textContent = this.lone ? this.names[this.at]
      : `${this.chart.barWords(a)} to ${this.chart.barWords(b - 1).slice(11)}`;
    const left = (n - done.size).toLocaleString('en');
    this.count.textContent = `${marked.size} labelled · ${empty} nothing here · ${left} to go`;
    this.meter.style.width = `${100 * done.size / n}%`;
  }

  paintHint(span) {
    const own = this.rowsOf(this.at), s = this.suggestion;
    const words = span ? this.spanWords(span) : this.words
      || (this.pending !== null ? `First bar ${this.pending - this.start}: click the last bar, or press Esc`
        : s ? `Suggested: ${this.spanWords(this.clip(s.span)).replace('Bars', 'bars')}`
          : own.length ? '' : 'Drag over the expansion, or press N if there is none');
    this.hint.textContent = words;
    this.take.style.visibility = s ? '' : 'hidden';
    this.toggle.classList.toggle('moola-on', this.showing);
  }

  spanWords([a, b]) {
    const { open, close } = this.chart.bars, move = close[b - 1] - open[a], share = 100 * move / Math.abs(open[a] || 1);
    const many = b - a === 1 ? '1 bar' : `${b - a} bars`;
    return `Bars ${a - this.start}–${b - 1 - this.start} · ${many} · ${signed(share, 2)} %`;
  }

  // Cards that would be the same stay, so that a click on one is not lost; so do all while a note is written.
  paintCards() {
    const cards = this.rowsOf(this.at).sort((p, q) => (p.first ?? 999) - (q.first ?? 999));
    if (this.cards.contains(document.activeElement) && document.activeElement.tagName === 'INPUT') return;
    const look = JSON.stringify([this.at, this.selected, cards]);
    if (look === this.shownCards) return;
    this.shownCards = look;
    this.cards.replaceChildren(...cards.map(r => this.card(r)));
  }

  card(r) {
    const group = { class: 'moola-choice', role: 'group' };
    const choice = (names, value, words, act) => node('span', group, ...names.map(x => {
      const about = { type: 'button', 'aria-pressed': String(x === value), title: words(x) };
      const b = node('button', about, x[0].toUpperCase() + x.slice(1));
      b.addEventListener('click', e => { this.selected = r.id; act(x); this.paint(); if (e.detail) this.focus(); });
      return b;
    }));
    const held = r.id === this.selected, marked = r.first !== null;
    const words = marked ? this.spanWords(this.spanOf(r))
      : r.dismissed ? `Suggestion of bars ${r.dismissed.join('–')} dismissed` : 'Nothing here';
    const note = node('input', { 'aria-label': 'Note', placeholder: 'Note', value: r.dismissed ? '' : r.note ?? '' });
    note.addEventListener('blur', () => {
      this.change(r.id, { note: note.value || null });
      setTimeout(() => this.paintCards());
    });
    const away = node('button', { type: 'button', title: 'Remove (Del)', 'aria-label': 'Remove' }, '✕');
    away.addEventListener('click', e => { this.remove(r.id); if (e.detail) this.focus(); });
    const say = node('span', { class: 'moola-words' }, words);
    say.addEventListener('click', () => { this.selected = r.id; this.paint(); this.focus(); });
    const key = x => `${x} (${x[0].toUpperCase()})`;
    const own = marked ? [choice(Object.values(BENCH_TYPES), r.label, key, x => this.setType(x)),
      choice(QUALITIES, r.quality, x => `Quality ${x} (Shift+${x})`, x => this.setQuality(x))] : [];
    const kind = marked ? 'moola-span' : 'moola-none';
    const all = [say, ...own, ...(r.dismissed ? [] : [note]), away];
    return node('div', { class: `moola-card ${kind}${held ? ' moola-held' : ''}` }, ...all);
  }

  destroy() {
    this.closed = true;
    for (const f of this.undo) f();
    this.chart.destroy();
    this.root.remove();
  }
}

// ---- in a notebook, messages go to the kernel; in a page of its own, to the server it came from

function askKernel(model) {
  const waiting = new Map();
  model.on('msg:custom', answer => { waiting.get(answer.key)?.(answer); waiting.delete(answer.key); });
  return message => new Promise((good, bad) => {
    const patience = ['suggest', 'similar', 'check'].includes(message.do) ? 600_000 : 8_000;
    const late = setTimeout(() => bad(new Error('the kernel does not answer')), patience);
    waiting.set(message.key, answer => { clearTimeout(late); good(answer); });
    model.send(message);
  });
}

async function askServer(message) {
  const token = new URLSearchParams(location.search).get('token');
  let answer;
  try {
    answer = await fetch('do', { method: 'POST', body: JSON.stringify(message),
      headers: { 'Content-Type': 'application/json', 'X-Token': token } });
  } catch { throw new Error('moola_label does not answer; start it again'); }
  if (!answer.ok) throw new Error(`moola_label refused (${answer.status})`);
  return answer.json();
}

function renderBench({ model, el }) {
  const bench = new MoolaBench(el, { ...model.get('state'), ...model.get('now') }, askKernel(model));
  return () => bench.destroy();
}
