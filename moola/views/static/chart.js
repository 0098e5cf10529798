// Bars on TradingView's lightweight-charts: one engine for the notebook's widget and for the page of its own.
// `openChart` makes a chart in an element and returns what one can do with it; `render` is the widget around it.

const { createChart, CandlestickSeries, HistogramSeries, BaselineSeries, LineSeries } = globalThis.LightweightCharts;

// The colours of the project's pictures; blue is lighter on a dark ground.
const LABELLED = '222, 143, 5', PREDICTED = '1, 115, 178', PREDICTED_IN_DARK = '86, 180, 233', PICKED = '120, 123, 134';
const UP = '#26a69a', DOWN = '#ef5350';
const FEATURE_COLORS = ['#029e73', '#cc78bc', '#ca9161', '#56b4e9', '#d55e00'];
const THEMES = {
  light: { background: '#ffffff', text: '#131722', grid: 'rgba(42, 46, 57, .06)', line: '#e0e3eb', cross: '#9598a1',
    curve: '#0173b2', veil: 'rgba(255, 255, 255, .66)' },
  dark: { background: '#131722', text: '#d1d4dc', grid: 'rgba(240, 243, 250, .06)', line: '#2a2e39', cross: '#758696',
    curve: '#56b4e9', veil: 'rgba(19, 23, 34, .66)' },
};
const FIRST_VIEW = 240;   // bars on screen at first, where there are more
const LEAST_VIEW = 8;     // bars that one can zoom in to
// Keys that are left to what steps through windows, where an element around the chart has the class moola-steps.
const STEPS = new Set(['ArrowLeft', 'ArrowRight', 'Home', 'End']);

// ---- columns -------------------------------------------------------------------------------------------------------

const KINDS = { float64: Float64Array, float32: Float32Array };

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// A column comes as base64 in a page and as a DataView from a notebook, whose bytes may start anywhere: hence the copy.
function asArray({ dtype, data }) {
  const bytes = typeof data === 'string' ? bytesOf(data)
    : data instanceof ArrayBuffer ? new Uint8Array(data)
      : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return new KINDS[dtype](bytes.slice().buffer);
}

// Python sends the columns of bars together with what else is to be known of them.
const unfold = patch => patch.bars ? { ...patch, bars: patch.bars.columns, ...patch.bars.about } : patch;

const asArrays = columns => Object.fromEntries(Object.entries(columns).map(([k, c]) => [k, asArray(c)]));

// The library wants times that rise. When clocks are set back, an hour of wall time comes twice: its second pass is
// squeezed into an instant of the axis, while the legend still reads the time of the data.
function rising(time) {
  const axis = new Float64Array(time);
  for (let i = 1; i < axis.length; i++) if (!(axis[i] > axis[i - 1])) axis[i] = axis[i - 1] + 1e-4;
  return axis;
}

function points(axis, value) {
  const out = new Array(axis.length);
  for (let i = 0; i < axis.length; i++) {
    out[i] = Number.isNaN(value[i]) ? { time: axis[i] } : { time: axis[i], value: value[i] };
  }
  return out;
}

function candles(axis, { open, high, low, close }) {
  const out = new Array(axis.length);
  for (let i = 0; i < axis.length; i++) {
    out[i] = { time: axis[i], open: open[i], high: high[i], low: low[i], close: close[i] };
  }
  return out;
}

function volumes(axis, { open, close, volume }) {
  const out = points(axis, volume);
  for (let i = 0; i < out.length; i++) out[i].color = close[i] >= open[i] ? UP + '66' : DOWN + '66';
  return out;
}

// ---- words ---------------------------------------------------------------------------------------------------------

const two = x => String(x).padStart(2, '0');

function timeWords(seconds, withSeconds) {
  const d = new Date(seconds * 1000);
  const day = `${d.getUTCFullYear()}-${two(d.getUTCMonth() + 1)}-${two(d.getUTCDate())}`;
  return `${day} ${two(d.getUTCHours())}:${two(d.getUTCMinutes())}` + (withSeconds ? `:${two(d.getUTCSeconds())}` : '');
}

// Seconds on the data's own clock, or NaN.
function readTime(text) {
  const m = /^\s*(\d{4})-(\d{1,2})-(\d{1,2})(?:[ T]+(\d{1,2}):(\d{2})(?::(\d{2}))?)?\s*$/.exec(text);
  if (!m) return NaN;
  const [y, mo, d, h, mi, s] = m.slice(1).map(x => Number(x ?? 0));
  const t = Date.UTC(y, mo - 1, d, h, mi, s), back = new Date(t);
  const real = back.getUTCMonth() === mo - 1 && back.getUTCDate() === d && h < 24 && mi < 60 && s < 60;
  return real ? t / 1000 : NaN;
}

function short(x) {
  const [unit, letter] = [[1e9, 'B'], [1e6, 'M'], [1e4, 'K']].find(([least]) => Math.abs(x) >= least) ?? [1, ''];
  return letter ? (x / (letter === 'K' ? 1e3 : unit)).toFixed(letter === 'K' ? 1 : 2) + letter : String(+x.toFixed(2));
}

const signed = (x, digits) => (x > 0 ? '+' : x < 0 ? '−' : '') + Math.abs(x).toFixed(digits);

// The first row whose value is not below x; the column rises.
function firstFrom(column, x) {
  let a = 0, b = column.length;
  while (a < b) { const m = (a + b) >> 1; if (column[m] < x) a = m + 1; else b = m; }
  return a;
}

function node(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
}

// ---- spans ---------------------------------------------------------------------------------------------------------

// Draws spans behind a series: a wash over the whole height and, on the pane of the prices, a strip at the top, so that
// a span of a few bars is still seen when 200,000 are on screen.
class SpanShades {
  constructor(groups, strips) { Object.assign(this, { groups, strips }); }
  attached({ chart, requestUpdate }) { Object.assign(this, { chart, requestUpdate }); }
  paneViews() { return [{ zOrder: () => 'bottom', renderer: () => ({ draw: target => this.draw(target) }) }]; }
  update() { this.requestUpdate?.(); }

  draw(target) {
    const scale = this.chart.timeScale(), seen = scale.getVisibleLogicalRange();
    if (!seen) return;
    const half = scale.options().barSpacing / 2;
    target.useBitmapCoordinateSpace(({ context, bitmapSize, horizontalPixelRatio: rx, verticalPixelRatio: ry }) => {
      for (const group of this.groups()) {
        const boxes = [];
        for (const [a, b] of group.spans) {
          if (a > seen.to + 1) break;
          if (b < seen.from) continue;
          const x = Math.round((scale.logicalToCoordinate(a) - half) * rx);
          const end = Math.round((scale.logicalToCoordinate(b - 1) + half) * rx);
          boxes.push([x, Math.max(end - x, Math.round(rx))]);
        }
        this.fill(context, boxes, group, bitmapSize.height, rx, ry);
      }
    });
  }

  // One path for all spans, so that neighbours on the same pixel don't add up; thin ones fade, and the strip remains.
  fill(context, boxes, { color, wash, edge, row }, height, rx, ry) {
    const path = (keep, draw) => {
      context.beginPath();
      for (const b of boxes) if (keep(b)) draw(...b);
      context.fill();
    };
    for (const [least, most, share] of [[8, Infinity, 1], [3, 8, .55]]) {
      context.fillStyle = `rgba(${color}, ${wash * share})`;
      path(([, w]) => w >= least * rx && w < most * rx, (x, w) => context.rect(x, 0, w, height));
    }
    const line = Math.max(1, Math.round(rx));
    context.fillStyle = `rgba(${color}, ${edge})`;
    const edges = (x, w) => [x, x + w - line].forEach(at => context.rect(at, 0, line, height));
    if (edge) path(([, w]) => w >= 8 * rx, edges);
    if (!this.strips || row === undefined) return;
    context.fillStyle = `rgb(${color})`;
    const top = Math.round(row * 5 * ry), tall = Math.round(4 * ry), least = Math.round(2 * rx);
    path(() => true, (x, w) => context.rect(x, top, Math.max(w, least), tall));
  }
}

// Dims the bars outside a frame, so that a window stands out from what came before and after it.
class Veil {
  constructor(frame, color) { Object.assign(this, { frame, color }); }
  attached({ chart, requestUpdate }) { Object.assign(this, { chart, requestUpdate }); }
  paneViews() { return [{ zOrder: () => 'top', renderer: () => ({ draw: target => this.draw(target) }) }]; }
  update() { this.requestUpdate?.(); }

  draw(target) {
    const frame = this.frame(), scale = this.chart.timeScale();
    if (!frame) return;
    const half = scale.options().barSpacing / 2, { veil, line } = this.color();
    target.useBitmapCoordinateSpace(({ context, bitmapSize: { width, height }, horizontalPixelRatio: rx }) => {
      const [a, b] = frame.map(row => Math.round((scale.logicalToCoordinate(row) - half) * rx));
      context.fillStyle = veil;
      context.fillRect(0, 0, Math.max(0, a), height);
      context.fillRect(b, 0, Math.max(0, width - b), height);
      context.fillStyle = line;
      for (const x of [a, b]) context.fillRect(x - Math.round(rx / 2), 0, Math.max(1, Math.round(rx)), height);
    });
  }
}

const sorted = spans => [...(spans ?? [])].map(([a, b]) => [a, b]).sort((p, q) => p[0] - q[0] || p[1] - q[1]);

// ---- theme ---------------------------------------------------------------------------------------------------------

// A chart in a frame that a page holds itself, as a report does, looks at that page.
function pageAround() {
  try { return window.frameElement ? window.parent.document : document; } catch { return document; }
}

// What the page around says of itself: JupyterLab, VS Code, Colab, the project's site; else what the system prefers.
function surroundings() {
  const { body, documentElement: html } = pageAround();
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === 'false' ? 'dark' : 'light';
  const code = body.dataset.vscodeThemeKind;
  if (code) return /dark|high-contrast$/.test(code) ? 'dark' : 'light';
  const marks = `${html.className} ${body.className} ${html.getAttribute('theme') ?? ''} ${html.dataset.theme ?? ''}`;
  if (/\b(quarto-|vscode-|theme-)?dark\b/.test(marks)) return 'dark';
  if (/\b(quarto-|vscode-|theme-)?light\b/.test(marks)) return 'light';
  return matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
}

function watchSurroundings(changed) {
  const seen = new MutationObserver(changed), system = matchMedia('(prefers-color-scheme: dark)');
  const marks = ['class', 'theme', 'data-theme', 'data-jp-theme-light', 'data-vscode-theme-kind'];
  const which = { attributes: true, attributeFilter: marks };
  for (const e of [pageAround().documentElement, pageAround().body]) seen.observe(e, which);
  system.addEventListener('change', changed);
  return () => { seen.disconnect(); system.removeEventListener('change', changed); };
}

// ---- the chart -----------------------------------------------------------------------------------------------------

class MoolaChart {
  // `state` holds the traits of Python's `Chart`, and may hold `frame`, [start, end) of the window that stands out, and
  // `held` and `offered`, a labelled and a predicted span to draw strongly. `events` may hold click(bar), visible(from, to) and select(start, end), which comes
  // without arguments when Escape ends a selection; jump(bar), after a date or a span was gone to; theme(name);
  // key(event), which comes first and returns whether it took the key; and grab(event, bar), which may return
  // { move(bar, event), end(bar, event) } to take a drag that would pan.
  constructor(el, state, events = {}) {
    Object.assign(this, { el, events, state: {}, panes: [], legends: [], undo: [], selecting: false });
    this.groups = { labels: [], spans: [], offered: [], held: [], picked: [] };
    this.layOut();
    this.chart = createChart(this.stage, { autoSize: true, ...this.fixedOptions() });
    this.chart.subscribeCrosshairMove(p => { this.hovered = p.logical; this.read(p.logical); });
    this.chart.subscribeClick(p => { if (this.has(p.logical)) this.events.click?.(p.logical); });
    this.chart.timeScale().subscribeVisibleLogicalRangeChange(() => this.moved());
    // A chart that isn't laid out yet has no width, and would forget what it is to show.
    this.chart.timeScale().subscribeSizeChange(() => {
      const wanted = this.wanted;
      this.wanted = null;
      if (wanted) this.show(...wanted);
    });
    this.undo.push(watchSurroundings(() => this.paint()));
    this.listen();
    this.set(state);
  }

  fixedOptions() {
    return {
      layout: { attributionLogo: true, fontFamily: 'inherit', panes: { enableResize: true } },
      crosshair: { mode: 0 },
      rightPriceScale: { borderVisible: false, minimumWidth: 64 },
      timeScale: { timeVisible: true, borderVisible: false, enableConflation: true,
        fixLeftEdge: true, fixRightEdge: true, lockVisibleTimeRangeOnResize: true },
      localization: { timeFormatter: t => this.axisWords(t) },
    };
  }

  layOut() {
    const button = (text, title, act) => {
      const b = node('button', { type: 'button', title, 'aria-label': title }, text);
      b.addEventListener('click', act);
      return b;
    };
    this.title = node('span', { class: 'moola-title' });
    this.keys = node('span', { class: 'moola-key' });
    this.note = node('span', { class: 'moola-note', role: 'status' });
    this.date = node('input', { class: 'moola-date', 'aria-label': 'Go to' });
    this.stage = node('div', { class: 'moola-stage' });
    this.legend = node('div', { class: 'moola-legend' });
    this.hops = node('span', { class: 'moola-hop' }, button('‹', 'Previous span (P)', () => this.hop(-1)), 'span',
      button('›', 'Next span (N)', () => this.hop(1)));
    const bar = node('div', { class: 'moola-bar' },
      this.title, this.keys, node('span', { class: 'moola-room' }), this.note, this.hops, this.date,
      button('Go', 'Go to the bar of that time (Enter)', () => this.jump(this.date.value)),
      button('−', 'Zoom out (−)', () => this.zoom(1.5)),
      button('+', 'Zoom in (+)', () => this.zoom(1 / 1.5)),
      button('Fit', 'All bars (F)', () => this.fit()),
      button('◐', 'Light or dark', () => this.setTheme(this.theme === 'dark' ? 'light' : 'dark')));
    const known = { class: 'moola-chart', tabindex: '0', role: 'group', 'aria-label': 'Chart of bars' };
    this.root = node('div', known, bar, this.stage);
    this.el.append(this.root);
    this.date.addEventListener('keydown', e => { if (e.key === 'Enter') this.jump(this.date.value); });
    this.date.addEventListener('input', () => this.say(''));
  }

  say(words) {
    this.note.textContent = words;
    if (words && document.activeElement === this.date) this.date.setAttribute('aria-invalid', 'true');
    else this.date.removeAttribute('aria-invalid');
  }

  // -- data

  // Take what is in `patch` and leave the rest as it is.
  set(given) {
    const patch = unfold(given), s = Object.assign(this.state, patch), fresh = 'bars' in patch;
    if (fresh) { this.bars = asArrays(s.bars); this.axis = rising(this.bars.time); this.n = this.axis.length; }
    if ('probability' in patch || fresh) this.probability = s.probability ? asArray(s.probability) : null;
    if ('features' in patch || fresh) this.features = asArrays(s.features ?? {});
    if ('labels' in patch) this.groups.labels = sorted(s.labels);
    if ('spans' in patch) this.groups.spans = sorted(s.spans);
    if ('held' in patch) this.groups.held = sorted(s.held);
    if ('offered' in patch) this.groups.offered = sorted(s.offered);
    if ('frame' in patch) s.frame = patch.frame?.length ? patch.frame : null;
    const lined = Boolean(this.probability) && s.threshold != null;
    if (fresh || 'probability' in patch || 'features' in patch || lined !== Boolean(this.line)) this.draw();
    if ('threshold' in patch) this.moveThreshold();
    if (fresh) { this.adaptScale(); this.firstView(); }
    if ('height' in patch) this.root.style.height = typeof s.height === 'number' ? `${s.height}px` : s.height;
    if ('visible' in patch && s.visible?.length) this.show(...s.visible);
    this.dress();
    this.paint();
  }

  // With a new `minBarSpacing` the library also takes back the bar spacing that it had: so this comes before `show`.
  adaptScale() {
    this.bySeconds = !this.state.numbered && this.bars.time.slice(0, 1000).some(t => t % 60);
    this.chart.applyOptions({ timeScale: { minBarSpacing: Math.min(.5, 100 / this.n), secondsVisible: this.bySeconds,
      tickMarkFormatter: this.state.numbered ? t => this.axisWords(t) : undefined } });
  }

  // Series are made anew only where another set of panes is wanted: stepping through windows keeps the panes' heights.
  draw() {
    const { threshold, digits, step } = this.state;
    const panes = [Boolean(this.probability), threshold == null, Object.keys(this.features)];
    const wanted = JSON.stringify(['volume' in this.bars, ...panes]);
    if (wanted !== this.made) { this.clear(); this.makePanes(); this.made = wanted; }
    this.price.applyOptions({ priceFormat: { type: 'price', precision: digits, minMove: step } });
    this.price.setData(candles(this.axis, this.bars));
    this.volume?.setData(volumes(this.axis, this.bars));
    for (const p of this.panes) p.series.setData(points(this.axis, p.value()));
  }

  // A threshold that moves leaves all else as it is.
  moveThreshold() {
    if (!this.line) return;
    const price = this.state.threshold;
    this.line.applyOptions({ price });
    this.panes[0].series.applyOptions({ baseValue: { type: 'price', price } });
  }

  clear() {
    for (const s of [this.price, this.volume, ...this.panes.map(p => p.series)]) if (s) this.chart.removeSeries(s);
    for (const e of this.legends) e.remove();
    while (this.chart.panes().length > 1) this.chart.removePane(this.chart.panes().length - 1);
    Object.assign(this, { price: null, volume: null, panes: [], legends: [], shades: [], line: null });
  }

  makePanes() {
    const below = [];
    if (this.probability) below.push(['probability', () => this.probability, this.probabilityOptions(), 2]);
    Object.keys(this.features).forEach((name, i) => {
      below.push([name, () => this.features[name], this.featureOptions(i)]);
    });
    this.price = this.chart.addSeries(CandlestickSeries, {
      upColor: UP, downColor: DOWN, wickUpColor: UP, wickDownColor: DOWN,
      borderVisible: false, priceLineVisible: false,
    }, 0);
    this.volume = 'volume' in this.bars ? this.makeVolume() : null;
    this.price.priceScale().applyOptions({ scaleMargins: { top: .1, bottom: this.volume ? .24 : .08 } });
    this.panes = below.map(([name, value, [kind, options], digits], i) => {
      const series = this.chart.addSeries(kind, { priceLineVisible: false, lastValueVisible: false, lineWidth: 1,
        conflationThresholdFactor: 2, ...options }, i + 1);
      series.priceScale().applyOptions({ scaleMargins: { top: .16, bottom: .08 } });
      return { name, value, series, digits };
    });
    if (this.probability && this.state.threshold != null) this.makeThreshold(this.panes[0].series);
    this.chart.panes().forEach((pane, i) => pane.setStretchFactor(i ? 1 : 3.4));
    this.shades = [this.price, ...this.panes.map(p => p.series)].map((s, i) => {
      const shade = new SpanShades(() => this.spanGroups(), i === 0);
      s.attachPrimitive(shade);
      const veil = new Veil(() => this.state.frame, () => THEMES[this.theme]);
      s.attachPrimitive(veil);
      return [shade, veil];
    }).flat();
    this.legends = [this.legend, ...this.panes.map(() => node('div', { class: 'moola-legend' }))];
    this.placeLegends();
  }

  makeVolume() {
    const v = this.chart.addSeries(HistogramSeries, { priceScaleId: 'volume', priceFormat: { type: 'volume' },
      priceLineVisible: false, lastValueVisible: false }, 0);
    v.priceScale().applyOptions({ scaleMargins: { top: .82, bottom: 0 } });
    return v;
  }

  probabilityOptions() {
    const whole = () => ({ priceRange: { minValue: 0, maxValue: 1 } });
    const price = { type: 'price', precision: 2, minMove: .01 };
    return [BaselineSeries, { baseValue: { type: 'price', price: this.state.threshold ?? 0 },
      bottomFillColor1: 'transparent', bottomFillColor2: 'transparent',
      autoscaleInfoProvider: whole, priceFormat: price }];
  }

  featureOptions(i) {
    const price = { type: 'custom', minMove: 1e-6, formatter: x => String(+x.toPrecision(3)) };
    return [LineSeries, { color: FEATURE_COLORS[i % FEATURE_COLORS.length], priceFormat: price }];
  }

  makeThreshold(series) {
    const price = this.state.threshold;
    this.line = series.createPriceLine({ price, color: '#787b86', lineWidth: 1, lineStyle: 2, axisLabelVisible: true });
  }

  // The library lays panes out in a frame of its own time: wait for their elements.
  placeLegends() {
    const cells = this.chart.panes().map(p => p.getHTMLElement()?.querySelectorAll('td')[1]);
    if (cells.some(c => !c)) { requestAnimationFrame(() => this.placeLegends()); return; }
    cells.forEach((c, i) => { c.style.position = 'relative'; if (this.legends[i]) c.append(this.legends[i]); });
    this.read();
  }

  spanGroups() {
    const { labels, spans, offered, held, picked } = this.groups, blue = this.theme === 'dark' ? PREDICTED_IN_DARK : PREDICTED;
    return [{ spans: labels, color: LABELLED, wash: .22, row: 0 }, { spans, color: blue, wash: .07, edge: .7, row: 1 },
      { spans: offered, color: blue, wash: .16, edge: 1 },
      { spans: held, color: LABELLED, wash: .2, edge: 1, row: 0 },
      { spans: picked, color: PICKED, wash: .25, edge: .8 }];
  }

  // -- looks

  dress() {
    const { title, spans, numbered } = this.state, labels = [...this.groups.labels, ...this.groups.held];
    this.title.textContent = title ?? '';
    this.keys.replaceChildren();
    if (labels.length) this.keys.append(node('i', { class: 'moola-labelled' }), 'labelled');
    if (spans?.length) this.keys.append(node('i', { class: 'moola-predicted' }), 'predicted');
    this.hops.style.display = labels.length || spans?.length ? '' : 'none';
    this.date.placeholder = numbered ? 'bar' : this.barWords(this.n - 1).slice(0, 16);
    for (const s of this.shades) s.update();
    this.read(this.hovered);
  }

  setTheme(name) { this.state.theme = name; this.paint(); }

  paint() {
    const theme = this.state.theme in THEMES ? this.state.theme : surroundings(), c = THEMES[theme];
    if (this.theme === theme && this.painted === this.made) return;
    Object.assign(this, { theme, painted: this.made });
    this.root.dataset.theme = theme;
    this.events.theme?.(theme);
    const cross = { color: c.cross, labelBackgroundColor: '#4c525e' };
    this.chart.applyOptions({
      layout: { background: { color: c.background }, textColor: c.text,
        panes: { separatorColor: c.line, separatorHoverColor: c.line } },
      grid: { vertLines: { color: c.grid }, horzLines: { color: c.grid } },
      crosshair: { vertLine: cross, horzLine: cross },
    });
    if (this.probability) {
      const foot = c.curve + (this.state.threshold != null ? '33' : '08');
      this.panes[0].series.applyOptions({ topLineColor: c.curve, topFillColor1: c.curve + '66', topFillColor2: foot,
        bottomLineColor: c.curve + '99' });
    }
  }

  // -- words

  has(row) { return Number.isInteger(row) && row >= 0 && row < this.n; }
  // Where windows follow each other without times, `every` bars make one, and each counts its own.
  barNumber(row) { return this.state.every ? row % this.state.every : row; }
  barWords(row) { return this.state.numbered ? `bar ${this.barNumber(row)}` : timeWords(this.bars.time[row], this.bySeconds); }
  axisWords(t) {
    const row = firstFrom(this.axis, t);
    return this.state.numbered || !this.has(row) ? String(this.barNumber(row)) : this.barWords(row);
  }

  // Prices, change and time of the bar under the crosshair; of the last one on screen, where there is no crosshair.
  read(row) {
    if (!this.n) return;
    if (!this.has(row)) row = Math.max(0, Math.min(this.n - 1, Math.round(this.seen()?.[1] ?? this.n) - 1));
    const b = this.bars, { digits, zone } = this.state, tone = b.close[row] >= b.open[row] ? 'up' : 'down';
    const said = (name, text, look) => node('span', { class: look, 'data-name': name }, text);
    const value = (name, text) => [node('b', {}, name), said(name, text, `moola-${tone}`), ' '];
    const plain = (name, text) => [node('b', {}, name), said(name, text, '')];
    const words = [said('time', this.barWords(row) + (zone ? ` ${zone}` : ''), 'moola-time'), ' '];
    const { frame } = this.state, inside = frame && !this.state.numbered && row >= frame[0] && row < frame[1];
    if (inside) words.push(said('bar', `bar ${row - frame[0]}`, 'moola-time'), ' ');
    for (const [name, column] of [['O', b.open], ['H', b.high], ['L', b.low], ['C', b.close]]) {
      words.push(...value(name, column[row].toFixed(digits)));
    }
    if (row) words.push(said('change', this.changeWords(row), `moola-${tone}`), ' ');
    if (b.volume) words.push(...value('V', short(b.volume[row])));
    if (this.probability) words.push(...plain('P', this.valueWords(this.probability[row], 2)));
    this.row = row;
    this.legend.replaceChildren(...words);
    this.panes.forEach((p, i) => {
      this.legends[i + 1].replaceChildren(...plain(p.name, this.valueWords(p.value()[row], p.digits)));
    });
  }

  changeWords(row) {
    const now = this.bars.close[row], before = this.bars.close[row - 1], by = now - before;
    return signed(by, this.state.digits) + (before ? ` (${signed(100 * by / Math.abs(before), 2)} %)` : '');
  }

  valueWords(x, digits) {
    return Number.isNaN(x) ? '–' : digits === undefined ? String(+x.toPrecision(4)) : x.toFixed(digits);
  }

  // -- moves

  // Rows on screen, [first, one past the last), not rounded. The library's ranges hold their last bar.
  seen() { const r = this.chart.timeScale().getVisibleLogicalRange(); return r && [r.from, r.to + 1]; }

  show(from, to) {
    const wide = Math.max(LEAST_VIEW, Math.min(this.n, to - from)), start = Math.max(0, Math.min(this.n - wide, from));
    if (!this.chart.timeScale().width()) { this.wanted = [from, to]; return; }
    this.chart.timeScale().setVisibleLogicalRange({ from: start, to: start + wide - 1 });
  }

  firstView() { this.n <= FIRST_VIEW * 1.5 ? this.fit() : this.show(this.n - FIRST_VIEW, this.n); }
  fit() { this.show(0, this.n); }
  pan(by) { const [a, b] = this.seen(); this.show(a + by, b + by); }

  zoom(factor) {
    const [a, b] = this.seen(), half = Math.max(LEAST_VIEW, (b - a) * factor) / 2, middle = (a + b) / 2;
    this.show(middle - half, middle + half);
  }

  // The library moves in its next frame; a crosshair that is set before would stand where the bar was.
  centre(row) {
    const [a, b] = this.seen(), half = Math.min(b - a, FIRST_VIEW) / 2;
    this.show(row + .5 - half, row + .5 + half);
    requestAnimationFrame(() => this.point(row));
  }

  point(row) {
    if (!this.has(row)) return;
    this.hovered = row;
    // Where nothing is laid out yet, the library has no place for a crosshair and throws.
    const price = this.bars.close[row];
    const laidOut = this.chart.timeScale().width() && this.price.priceToCoordinate(price) !== null;
    if (laidOut) this.chart.setCrosshairPosition(price, this.axis[row], this.price);
    this.read(row);
  }

  // To the first bar at or after a time as text, or to a bar's number where bars have no times.
  jump(text) {
    const { numbered } = this.state, number = /^\s*\d+\s*$/.test(text) ? Number(text) : NaN;
    const wanted = numbered ? number + (this.state.every ? this.state.frame[0] : 0) : readTime(text);
    const cure = numbered ? 'Write the number of a bar' : 'Write a time as 2024-01-31 09:30';
    if (Number.isNaN(wanted)) return this.say(cure);
    const row = numbered ? wanted : firstFrom(this.bars.time, wanted);
    if (row >= this.n || (numbered && number >= (this.state.every || this.n))) return this.say(`The last bar is ${this.barWords(this.n - 1)}`);
    if (!numbered && wanted < this.bars.time[0] - 86400) return this.say(`The first bar is ${this.barWords(0)}`);
    this.say('');
    this.centre(row);
    this.events.jump?.(row);
  }

  // To the next or previous span, labelled or predicted: from the one that was shown last, or from the middle
  // of the screen, or from the ends where all bars are on it.
  hop(way) {
    const [a, b] = this.seen(), all = b - a >= this.n;
    const at = this.hopped?.seen === `${a},${b}` ? this.hopped.start : all ? (way > 0 ? -1 : this.n) : (a + b) / 2;
    const { labels, held, spans } = this.groups;
    const starts = [...labels, ...held, ...spans].map(s => s[0]).sort((p, q) => p - q);
    const to = way > 0 ? starts.find(s => s > at) : starts.findLast(s => s < at);
    if (to === undefined) return this.say(way > 0 ? 'No span after this' : 'No span before this');
    this.say('');
    this.centre(to);
    this.events.jump?.(to);
    requestAnimationFrame(() => { this.hopped = { start: to, seen: this.seen().join() }; });
  }

  moved() {
    cancelAnimationFrame(this.waiting);
    this.waiting = requestAnimationFrame(() => {
      const s = this.n && this.seen();
      if (!s) return;
      const range = [Math.max(0, Math.round(s[0])), Math.min(this.n, Math.round(s[1]))];
      if (this.reported?.join() === range.join()) return;
      this.reported = range;
      this.events.visible?.(...range);
      if (this.hovered >= range[0] && this.hovered < range[1]) return;
      this.hovered = undefined;
      this.read();
    });
  }

  // -- keys and mouse

  key(e) {
    if (this.events.key?.(e) || (STEPS.has(e.key) && !e.shiftKey && this.root.closest('.moola-steps'))) return;
    const [a, b] = this.seen() ?? [0, 1], wide = b - a, step = e.shiftKey ? wide * .8 : Math.max(1, wide / 40);
    const act = {
      ArrowLeft: () => this.pan(-step), ArrowRight: () => this.pan(step),
      Home: () => this.show(0, wide), End: () => this.show(this.n - wide, this.n),
      '+': () => this.zoom(1 / 1.5), '=': () => this.zoom(1 / 1.5), '-': () => this.zoom(1.5), f: () => this.fit(),
      n: () => this.hop(1), p: () => this.hop(-1), g: () => this.date.focus(),
      Escape: () => { this.pick(null); this.events.select?.(); },
    }[e.key.length === 1 ? e.key.toLowerCase() : e.key];
    if (!act || e.ctrlKey || e.metaKey || e.altKey || e.target.closest?.('input, textarea, select')) return;
    e.preventDefault();
    e.stopImmediatePropagation();
    act();
  }

  // On window and while capturing, so as to come before the notebook's shortcuts, which have their own use for arrows.
  listen() {
    const on = (target, name, f) => {
      target.addEventListener(name, f, true);
      this.undo.push(() => target.removeEventListener(name, f, true));
    };
    on(window, 'keydown', e => { if (e.target instanceof Element && this.root.contains(e.target)) this.key(e); });
    on(this.stage, 'pointerdown', e => {
      this.root.focus({ preventScroll: true });
      if (!this.startGrab(e)) this.startSelection(e);
    });
  }

  rowAt(clientX) {
    const x = clientX - this.stage.getBoundingClientRect().left, row = this.chart.timeScale().coordinateToLogical(x);
    return Math.max(0, Math.min(this.n - 1, Math.round(row ?? 0)));
  }

  // The boundary between bars that is nearest: k lies before bar k.
  boundaryAt(clientX) {
    const x = clientX - this.stage.getBoundingClientRect().left, half = this.chart.timeScale().options().barSpacing / 2;
    return Math.max(0, Math.min(this.n, Math.round(this.chart.timeScale().coordinateToLogical(x + half) ?? 0)));
  }

  // Is the mouse where bars are, and not on an axis?
  onBars({ clientX, clientY }) {
    const box = this.stage.getBoundingClientRect(), scale = this.chart.timeScale();
    return clientX - box.left < scale.width() && box.bottom - clientY > scale.height();
  }

  // A default that is prevented here keeps the mouse from the library.
  startGrab(e) {
    const hold = !e.button && this.events.grab && this.onBars(e) && this.events.grab(e, this.rowAt(e.clientX));
    if (!hold) return false;
    e.preventDefault();
    e.stopPropagation();
    this.follow(hold);
    return true;
  }

  follow({ move, end }) {
    const moved = m => move?.(this.rowAt(m.clientX), m);
    const ended = u => {
      window.removeEventListener('pointermove', moved);
      window.removeEventListener('pointerup', ended);
      window.removeEventListener('pointercancel', ended);
      end?.(this.rowAt(u.clientX), u);
    };
    window.addEventListener('pointermove', moved);
    window.addEventListener('pointerup', ended);
    window.addEventListener('pointercancel', ended);
  }

  // Dragging with Shift, or while `select(true)` holds, marks bars instead of panning.
  startSelection(e) {
    if (e.button || !(e.shiftKey || this.selecting) || !this.events.select) return;
    e.preventDefault();
    e.stopPropagation();
    const first = this.rowAt(e.clientX), range = to => [Math.min(first, to), Math.max(first, to) + 1];
    this.follow({ move: row => this.pick(range(row)), end: row => this.events.select(...range(row)) });
    this.pick(range(first));
  }

  select(on) { this.selecting = on; this.root.classList.toggle('moola-selecting', on); }
  pick(span) { this.groups.picked = span ? [span] : []; for (const s of this.shades) s.update(); }

  destroy() {
    for (const f of this.undo) f();
    cancelAnimationFrame(this.waiting);
    this.chart.remove();
    this.root.remove();
  }
}

export const openChart = (el, state, events) => new MoolaChart(el, state, events);

// ---- the widget ----------------------------------------------------------------------------------------------------

const TRAITS = ['bars', 'labels', 'spans', 'probability', 'threshold', 'features', 'visible', 'frame', 'theme', 'height',
  'selecting'];

function render({ model, el }) {
  let timer;
  const tell = (name, value) => { model.set(name, value); model.save_changes(); };
  const chart = openChart(el, patchOf(model, TRAITS), {
    click: bar => tell('clicked', bar),
    select: (...span) => tell('selected', span),
    visible: (from, to) => { clearTimeout(timer); timer = setTimeout(() => tell('visible', [from, to]), 150); },
  });
  // Changes that come in one message are taken in one go.
  let changed = new Set();
  const flush = () => {
    if (changed.has('bars')) changed.add('visible'); // other bars forget what was on screen, though it may be the same
    const patch = patchOf(model, [...changed]);
    changed = new Set();
    if (keeps(chart, patch)) chart.set(patch);
  };
  const take = name => { if (!changed.size) queueMicrotask(flush); changed.add(name); };
  for (const name of TRAITS) model.on(`change:${name}`, () => take(name));
  model.on('change:selected', () => chart.pick(model.get('selected')?.length ? model.get('selected') : null));
  return () => { clearTimeout(timer); chart.destroy(); };
}

const patchOf = (model, names) => Object.fromEntries(names.map(n => [n, model.get(n)]));

// What the chart itself has just reported is not to be taken back.
function keeps(chart, patch) {
  if (!patch.bars && patch.visible?.join() === chart.reported?.join()) delete patch.visible;
  if ('selecting' in patch) chart.select(patch.selecting);
  delete patch.selecting;
  return Object.keys(patch).length;
}

export default { render };
