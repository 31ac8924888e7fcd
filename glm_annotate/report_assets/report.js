"use strict";
// The page of a report. Whatever comes from a file reaches the page as text (textContent, or an
// attribute of an SVG shape), never as markup; what igv.js gets has gone through `harmless`.
(function () {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const BLUE = "#0072b2", ORANGE = "#d55e00", GREY = "#8b97a4";
  const BASE_COLOURS = { A: "#009e73", C: "#0072b2", G: "#e69f00", T: "#d55e00" };
  const STATUS_COLOURS = ["#e69f00", "#d55e00", "#cc79a7", "#009e73", "#f0e442", "#7f8c99", "#3d4a57"];
  const OTHERS = "others"; // the rarest statuses together
  const MOST_HISTOGRAMS = 8, MOST_SHOWN_COLUMNS = 10;
  const WIDTHS = [["bases", "Bases", 30], ["near", "1 kb", 500], ["wide", "20 kb", 10000]];

  // --- small things ------------------------------------------------------------------------

  const byId = id => document.getElementById(id);

  function fill(node, children) {
    for (const child of children) {
      if (child === null || child === undefined) continue;
      node.append(child instanceof Node ? child : document.createTextNode(String(child)));
    }
    return node;
  }

  function el(name, attributes, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key === "on") for (const [event, run] of Object.entries(value)) node.addEventListener(event, run);
      else if (key === "style") Object.assign(node.style, value);
      else if (value !== undefined && value !== null) node.setAttribute(key, value);
    }
    return fill(node, children);
  }

  function svg(name, attributes, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    return fill(node, children);
  }

  function clear(node) { node.replaceChildren(); return node; }

  const count = n => n.toLocaleString("en-US");
  const share = (part, all) => all ? `${(100 * part / all).toFixed(part && part < all ? 1 : 0)} %` : "";

  function number(x) {
    if (x === null || x === undefined) return "";
    const size = Math.abs(x);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return x.toExponential(2);
    return Number.isInteger(x) ? String(x) : x.toFixed(size < 1 ? 4 : size < 100 ? 3 : 1);
  }

  // igv.js writes names into markup and decodes %XX: look-alikes of what markup is made of.
  const LOOKALIKES = { "<": "\u2039", ">": "\u203a", "&": "\uff06", '"': "\u201d", "'": "\u2019", "`": "\u2018", "%": "\uff05" };
  const harmless = text => String(text).replace(/[<>&"'`%]/g, x => LOOKALIKES[x]).replace(/[\u0000-\u001f]/g, " ");

  // --- rows --------------------------------------------------------------------------------

  const numeric = DATA.columns.map((x, i) => i).filter(i => DATA.columns[i].number);
  const ranking = numeric.filter(i => !DATA.columns[i].ofTrack);
  const many = DATA.columns.length > MOST_SHOWN_COLUMNS;

  const ROWS = DATA.rows.map((row, i) => {
    const [contig, pos, name, ref, alt, refLength, filter, info, gene, values, statuses] = row;
    const item = { i, contig, chrom: DATA.contigs[contig].name, pos, name, ref, alt, refLength, filter, info, gene, values, statuses };
    values.forEach((value, k) => { item["v" + k] = value; });
    statuses.forEach((status, k) => { item["s" + k] = status; });
    item.text = [`${item.chrom}:${pos}`, name, `${ref}>${alt}`, gene, ...statuses, ...values.filter(x => typeof x === "string")].join(" ").toLowerCase();
    return item;
  });

  const firstScore = row => ranking.map(k => row.values[k]).find(x => x !== null);
  // A few far scores must not flatten the bars of all others: those are cut.
  const limits = DATA.columns.map((column, k) => {
    const sizes = column.number ? ROWS.map(row => Math.abs(row.values[k]) || 0).sort((a, b) => a - b) : [];
    return sizes[Math.floor(0.98 * (sizes.length - 1))] || sizes[sizes.length - 1] || 1;
  });
  const basesOf = row => Math.min(row.refLength, 1000);
  const alleleText = row => `${row.ref}>${row.alt}`;
  const placeText = row => `${row.chrom}:${count(row.pos)}`;

  const state = { row: null, table: null, browser: null, width: null, turn: 0, loaded: [], found: ROWS.length };

  // --- head --------------------------------------------------------------------------------

  function drawHead() {
    byId("title").textContent = DATA.title;
    const parts = [DATA.source];
    if (DATA.reference) parts.push(`reference ${DATA.reference}`);
    byId("subtitle").textContent = parts.join("  \u00b7  ");
    for (const { tag, fields } of DATA.models) {
      const rest = [
        fields.Context && `window ${count(Number(fields.Context)) === "NaN" ? fields.Context : count(Number(fields.Context))} bp`,
        fields.Strands && `strands: ${fields.Strands}`,
        fields.Scores && fields.Scores.split(",").join(", "),
        fields.Sha256 && `digest ${fields.Sha256.slice(0, 12)}`,
      ].filter(Boolean);
      byId("models").append(el("div", { class: "model", title: `keys ${tag}_...` },
        el("b", {}, `${fields.Name || tag} ${fields.Version || ""}`), rest.length ? "  \u00b7  " + rest.join("  \u00b7  ") : ""));
    }
    const n = DATA.counts;
    const tiles = [
      [count(n.records), "records"],
      [count(n.alleles), n.withoutAlt ? `alleles (${count(n.withoutAlt)} records without)` : "alleles"],
      [share(n.scored, n.alleles) || "0", `with a number (${count(n.scored)})`],
    ];
    if (n.rows < n.alleles) tiles.push([count(n.rows), "in the table"]);
    byId("tiles").append(...tiles.map(([big, small]) => el("div", { class: "tile" }, el("b", {}, big), el("span", {}, small))));
  }

  // --- distributions -----------------------------------------------------------------------

  const PLOT = { width: 300, height: 112, left: 4, right: 4, top: 16, bottom: 18 };
  const marks = [];

  function ticks(low, high, n) {
    const raw = (high - low) / n, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map(x => x * power).find(x => x >= raw);
    const found = [];
    for (let x = Math.ceil(low / step) * step; x <= high + step * 1e-9; x += step) found.push(Math.abs(x) < step * 1e-9 ? 0 : x);
    return found;
  }

  const tickText = x => Number(x.toPrecision(6)).toString();

  function histogram(k) {
    const column = DATA.columns[k], { low, high, counts, below, above } = DATA.histograms[column.key];
    const inner = PLOT.width - PLOT.left - PLOT.right, base = PLOT.height - PLOT.bottom;
    const x = value => PLOT.left + inner * Math.min(1, Math.max(0, (value - low) / (high - low)));
    const top = Math.max(...counts), tall = base - PLOT.top;
    const bars = counts.map((n, i) => {
      const from = low + (high - low) * i / counts.length, to = low + (high - low) * (i + 1) / counts.length;
      const height = n ? Math.max(1.5, tall * n / top) : 0;
      return svg("rect", { x: x(from) + 0.5, y: base - height, width: Math.max(0.5, x(to) - x(from) - 1), height, fill: (from + to) / 2 < 0 ? ORANGE : BLUE, "fill-opacity": 0.72 },
        svg("title", {}, `${number(from)} to ${number(to)}: ${count(n)}`));
    });
    const axis = ticks(low, high, 5).map(value => svg("g", {},
      svg("line", { x1: x(value), x2: x(value), y1: base, y2: base + 3, stroke: "#9aa5b1" }),
      svg("text", { x: Math.min(PLOT.width - 10, Math.max(8, x(value))), y: PLOT.height - 4, "text-anchor": "middle" }, tickText(value))));
    const line = svg("line", { y1: PLOT.top - 2, y2: base, stroke: "#1b2733", "stroke-width": 1.6 });
    const label = svg("text", { class: "mark-text", y: PLOT.top - 5 });
    const mark = svg("g", { visibility: "hidden", class: "mark" }, line, label);
    marks.push(row => {
      const value = row && row.values[k];
      mark.setAttribute("visibility", typeof value === "number" ? "visible" : "hidden");
      if (typeof value !== "number") return;
      const at = x(value);
      line.setAttribute("x1", at); line.setAttribute("x2", at);
      label.setAttribute("x", at);
      label.setAttribute("text-anchor", at < 40 ? "start" : at > PLOT.width - 40 ? "end" : "middle");
      label.textContent = number(value);
    });
    const total = counts.reduce((a, b) => a + b, 0);
    const ends = below + above ? `, ${count(below + above)} beyond` : "";
    return el("div", { class: "histogram", title: column.about },
      el("h4", {}, column.key, " ", el("span", { class: "muted" }, `${count(total)} alleles${ends}`)),
      svg("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, role: "img", "aria-label": `Distribution of ${column.key}` },
        svg("line", { x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: base, y2: base, stroke: "#9aa5b1" }), ...bars, ...axis, mark));
  }

  function drawHistograms() {
    const holder = byId("histograms");
    const there = [...ranking, ...numeric.filter(k => DATA.columns[k].ofTrack)].filter(k => DATA.histograms[DATA.columns[k].key]);
    holder.append(...there.slice(0, MOST_HISTOGRAMS).map(histogram));
    if (there.length > MOST_HISTOGRAMS) {
      const more = el("button", { type: "button", on: { click: () => {
        more.remove();
        holder.append(...there.slice(MOST_HISTOGRAMS).map(histogram));
        marks.forEach(mark => mark(state.row));
      } } }, `Show ${there.length - MOST_HISTOGRAMS} more`);
      holder.append(more);
    }
    if (!there.length) holder.append(el("p", { class: "muted" }, "No allele has a number."));
  }

  // --- statuses ----------------------------------------------------------------------------

  function statusColour(word, place) {
    if (word === "SCORED") return BLUE;
    return word === "PRECOMPUTED" ? "#56b4e9" : STATUS_COLOURS[place % STATUS_COLOURS.length];
  }

  function drawStatuses() {
    DATA.tags.forEach((tag, k) => {
      const found = DATA.statuses[tag];
      let place = 0;
      const coloured = found.map(([word, n, meaning]) => ({ word, n, meaning,
        colour: statusColour(word, word === "SCORED" || word === "PRECOMPUTED" ? 0 : place++) }));
      const bar = el("div", { class: "status-bar", role: "img", "aria-label": coloured.map(x => `${x.word} ${x.n}`).join(", ") },
        ...coloured.map(x => el("div", { title: `${x.word}: ${count(x.n)}`, style: { flexGrow: x.n, flexBasis: 0, background: x.colour } })));
      const list = el("table", { class: "status-list" }, el("tbody", {}, ...coloured.map(x => el("tr", {},
        el("td", { class: x.word.length < 26 ? "short" : null }, el("span", { class: "swatch", style: { background: x.colour } }),
          x.word === OTHERS ? x.word
            : el("button", { type: "button", title: "Show these alleles alone", on: { click: () => filterStatus(k, x.word) } }, x.word)),
        el("td", { class: "count" }, count(x.n)), el("td", { class: "count muted" }, share(x.n, DATA.counts.alleles)),
        el("td", {}, x.meaning)))));
      byId("statuses").append(el("div", { class: "status-model" }, DATA.tags.length > 1 ? el("b", {}, tag) : null, bar, list));
    });
    if (!DATA.tags.length) byId("statuses").append(el("p", { class: "muted" }, "The file has no status."));
  }

  function filterStatus(k, word) {
    if (!state.table) return;
    state.table.setHeaderFilterValue("s" + k, word);
    byId("table").scrollIntoView({ block: "nearest" });
  }

  // --- table -------------------------------------------------------------------------------

  function titled(text, about) {
    return { title: text, titleFormatter: () => el("span", { title: about || text }, text) };
  }

  function rangeFilter(cell, onRendered, success) {
    const boxes = ["min", "max"].map(name => el("input", { type: "number", step: "any", placeholder: name, "aria-label": name, "data-range": name }));
    const tell = () => success(boxes.every(box => box.value === "") ? "" : { min: boxes[0].value, max: boxes[1].value });
    for (const box of boxes) {
      box.addEventListener("input", tell);
      box.addEventListener("keydown", event => event.stopPropagation());
      box.addEventListener("click", event => event.stopPropagation());
    }
    return el("div", { class: "range" }, ...boxes);
  }

  function inRange(wanted, value) {
    if (!wanted) return true;
    if (typeof value !== "number") return false;
    return (wanted.min === "" || value >= Number(wanted.min)) && (wanted.max === "" || value <= Number(wanted.max));
  }

  const rangeOptions = { headerFilter: rangeFilter, headerFilterFunc: inRange, headerFilterLiveFilter: false, headerFilterEmptyCheck: x => !x };
  const has = (wanted, value) => String(value).toLowerCase().includes(String(wanted).toLowerCase());

  function choice(field, values) {
    const seen = [...new Set(values)].sort();
    if (seen.length > 40) return { headerFilter: "input", headerFilterFunc: has };
    // A plain select: the words come from the file.
    const make = (cell, onRendered, success) => {
      const box = el("select", { "aria-label": "filter", on: { change: () => success(box.value), click: event => event.stopPropagation() } },
        el("option", { value: "" }, "all"), ...seen.map(x => el("option", { value: x }, x)));
      const before = cell.getValue();
      if (before) box.value = before;
      return box;
    };
    return { headerFilter: make, headerFilterFunc: "=", headerFilterLiveFilter: false, headerFilterEmptyCheck: x => !x };
  }

  const plain = cell => document.createTextNode(cell.getValue() ?? "");
  const alleleCell = cell => el("span", { class: "allele", title: cell.getValue() }, cell.getValue());

  function scoreCell(k) {
    return cell => {
      const value = cell.getValue();
      if (value === null || value === undefined) return el("span", { class: "score muted" }, "\u2013");
      const width = 50 * Math.min(1, Math.abs(value) / limits[k]);
      const bar = el("i", { style: { left: `${value < 0 ? 50 - width : 50}%`, width: `${width}%`, background: value < 0 ? ORANGE : BLUE } });
      return el("span", { class: "score" }, bar, el("span", {}, number(value)));
    };
  }

  function numberSorter(a, b, rowA, rowB, column, direction) {
    const empty = direction === "asc" ? Infinity : -Infinity;
    const [x, y] = [a, b].map(value => typeof value === "number" ? value : empty);
    return x === y ? 0 : x < y ? -1 : 1;
  }

  function placeSorter(a, b, rowA, rowB) {
    const [x, y] = [rowA.getData(), rowB.getData()];
    return x.contig - y.contig || x.pos - y.pos || x.i - y.i;
  }

  function columns() {
    const found = [
      { ...titled("chrom"), field: "chrom", minWidth: 78, widthGrow: 0.7, formatter: plain, sorter: placeSorter, ...choice("chrom", ROWS.map(x => x.chrom)) },
      { ...titled("pos", "1-based, as in the VCF"), field: "pos", minWidth: 104, hozAlign: "right", formatter: cell => document.createTextNode(count(cell.getValue())), sorter: "number", ...rangeOptions },
      { ...titled("ID"), field: "name", minWidth: 112, formatter: plain, headerFilter: "input", headerFilterFunc: has },
      { ...titled("ref"), field: "ref", minWidth: 58, widthGrow: 0.6, formatter: alleleCell, headerFilter: "input", headerFilterFunc: has },
      { ...titled("alt"), field: "alt", minWidth: 58, widthGrow: 0.6, formatter: alleleCell, headerFilter: "input", headerFilterFunc: has },
    ];
    if (DATA.hasGenes) found.push({ ...titled("gene"), field: "gene", minWidth: 84, formatter: plain, headerFilter: "input", headerFilterFunc: has });
    DATA.columns.forEach((column, k) => {
      const head = { ...titled(column.key, column.about), field: "v" + k, visible: !(many && column.ofTrack) };
      const wide = 44 + 10 * column.key.length;
      found.push(column.number
        ? { ...head, minWidth: Math.max(122, wide), formatter: scoreCell(k), sorter: numberSorter, ...rangeOptions }
        : { ...head, minWidth: Math.max(110, wide), formatter: plain, headerFilter: "input", headerFilterFunc: has });
    });
    DATA.tags.forEach((tag, k) => {
      const text = DATA.tags.length > 1 ? `${tag} status` : "status";
      found.push({ ...titled(text, `${tag}_STATUS`), field: "s" + k, minWidth: Math.max(110, 44 + 10 * text.length), formatter: plain, ...choice("s" + k, ROWS.map(x => x.statuses[k])) });
    });
    return found;
  }

  function drawTable() {
    const table = new Tabulator("#table", {
      data: ROWS, index: "i", height: "470px", layout: "fitColumns", columns: columns(),
      nestedFieldSeparator: false, columnDefaults: { headerSortTristate: true, resizable: "header" },
      pagination: true, paginationSize: 100, paginationSizeSelector: [25, 100, 500, true], paginationButtonCount: 3,
      paginationCounter: "rows", placeholder: "No allele passes the filters",
      rowFormatter: row => row.getElement().classList.toggle("is-chosen", row.getData() === state.row || row.getData().i === state.row?.i),
    });
    state.table = table;
    table.on("rowClick", (event, row) => choose(ROWS[row.getData().i]));
    table.on("dataFiltered", (filters, rows) => {
      // The page that one was on may no longer be there, or hold other rows.
      if (rows.length !== state.found && table.getPage() > 1) setTimeout(() => table.setPage(1));
      state.found = rows.length;
      byId("found").textContent = rows.length === ROWS.length ? `${count(ROWS.length)} alleles` : `${count(rows.length)} of ${count(ROWS.length)} alleles`;
    });
    table.on("tableBuilt", () => { drawChooser(); start(); });
    byId("search").addEventListener("input", event => {
      const words = event.target.value.toLowerCase().replace(/(\d),(?=\d)/g, "$1").split(/\s+/).filter(Boolean);
      if (words.length) table.setFilter(item => words.every(word => item.text.includes(word)));
      else table.clearFilter(false);
    });
    byId("reset").addEventListener("click", () => {
      byId("search").value = "";
      table.clearFilter(true);
      byId("table").querySelectorAll(".range input").forEach(box => { box.value = ""; });
    });
  }

  function drawChooser() {
    byId("chooser-list").append(...state.table.getColumns().map(column => {
      const box = el("input", { type: "checkbox", on: { change: () => column.toggle() } });
      box.checked = column.isVisible();
      return el("label", {}, box, " ", column.getDefinition().title);
    }));
    document.addEventListener("click", event => {
      if (!byId("chooser").contains(event.target)) byId("chooser").open = false;
    });
  }

  function step(by) {
    const rows = state.table.getRows("active").map(row => row.getData().i);
    if (!rows.length) return;
    const at = rows.indexOf(state.row?.i);
    const next = rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + by))];
    choose(ROWS[next]);
    show(ROWS[next]);
  }

  // Turns the page where the row is on another one; a row that is filtered out stays unseen.
  async function show(row) {
    const table = state.table;
    if (!table.getRows("active").some(x => x.getData().i === row.i)) return;
    await table.setPageToRow(row.i);
    if (!table.getRows("visible").some(x => x.getData().i === row.i)) await table.scrollToRow(row.i, "center", false);
  }

  // --- the chosen variant ------------------------------------------------------------------

  function drawChosen(row) {
    const holder = clear(byId("chosen"));
    if (!row) { holder.append(el("p", { class: "muted" }, "Choose a row of the table.")); return; }
    const facts = [];
    const fact = (name, value, kind) => { if (value !== null && value !== "") facts.push(el("dt", {}, name), el("dd", { class: kind }, value)); };
    DATA.columns.forEach((column, k) => {
      if (!(many && column.ofTrack)) fact(column.key, column.number ? number(row.values[k]) || "\u2013" : row.values[k], column.number ? "number" : undefined);
    });
    const about = [];
    const also = (name, value) => { if (value && value !== ".") about.push(el("dt", {}, name), el("dd", {}, value)); };
    DATA.tags.forEach((tag, k) => {
      const meaning = (DATA.statuses[tag].find(x => x[0] === row.statuses[k]) || [])[2];
      also(DATA.tags.length > 1 ? `${tag} status` : "Status", meaning && row.statuses[k] !== "SCORED" ? `${row.statuses[k]}: ${meaning}` : row.statuses[k]);
    });
    also("Gene", row.gene);
    also("Filter", row.filter);
    for (const pair of row.info.split(";")) {
      const cut = pair.indexOf("=");
      if (cut > 0) also(pair.slice(0, cut), pair.slice(cut + 1)); else also(pair, pair && pair !== "." ? "yes" : "");
    }
    holder.append(
      el("h3", {}, `${placeText(row)} `, el("span", { class: "allele" }, alleleText(row))),
      el("p", { class: "muted" }, row.name || "no ID"),
      el("dl", {}, ...facts), el("dl", {}, ...about),
      el("div", { class: "steps" },
        el("button", { type: "button", on: { click: () => step(-1) } }, "Previous"),
        el("button", { type: "button", on: { click: () => step(1) } }, "Next")));
  }

  async function choose(row) {
    const before = state.row;
    state.row = row;
    for (const old of [before, row]) {
      const found = old && state.table.getRow(old.i);
      if (found) found.reformat();
    }
    drawChosen(row);
    marks.forEach(mark => mark(row));
    byId("place").textContent = `${placeText(row)} ${alleleText(row)}${row.name ? `  \u00b7  ${row.name}` : ""}`;
    drawLogo(row);
    await showInBrowser(row);
  }

  // --- the genome browser ------------------------------------------------------------------

  const igvName = contig => DATA.contigs[contig].igv;

  function base64(text) {
    const bytes = new TextEncoder().encode(text);
    let out = "";
    for (let i = 0; i < bytes.length; i += 0x8000) out += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
    return btoa(out);
  }

  // igv.js takes stretches of a contig with their true places: `>name:first-last @len=length`.
  function fasta() {
    const parts = DATA.bases.map(([contig, start, bases]) =>
      `>${igvName(contig)}:${start + 1}-${start + bases.length} @len=${DATA.contigs[contig].length}\n${bases}\n`);
    return "data:text/plain;base64," + base64(parts.join(""));
  }

  function plainAllele(text) {
    if (/^[ACGTNacgtn]+$/.test(text) || text === "*" || /^<[A-Za-z0-9:_]+>$/.test(text)) return text;
    return "N";
  }

  function variantTrack() {
    const lines = ROWS.map(row => [igvName(row.contig), row.pos, harmless(row.name || ".").replace(/\s/g, "_"),
      plainAllele(row.ref), plainAllele(row.alt), ".", "PASS", `ROW=${row.i}`].join("\t"));
    const head = '##fileformat=VCFv4.2\n##INFO=<ID=ROW,Number=1,Type=Integer,Description="row">\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n';
    return { type: "variant", format: "vcf", name: "Variants", indexed: false, visibilityWindow: -1, searchable: false,
      displayMode: "EXPANDED", height: 46, maxHeight: 120, autoHeight: false, removable: false,
      url: "data:text/plain;base64," + base64(head + lines.join("\n") + "\n"),
      color: variant => ROWS[Number(variant.info.ROW)] === state.row ? "#1b2733" : variantColour(ROWS[Number(variant.info.ROW)]) };
  }

  function variantColour(row) {
    const score = firstScore(row);
    return score === undefined ? GREY : score < 0 ? ORANGE : BLUE;
  }

  function scoreTrack() {
    const k = ranking.find(i => DATA.histograms[DATA.columns[i].key]);
    if (k === undefined) return null;
    const best = new Map();
    for (const row of ROWS) {
      const value = firstScore(row), key = `${row.contig}:${row.pos}`;
      if (value !== undefined && !(Math.abs(best.get(key)?.value) >= Math.abs(value)))
        best.set(key, { chr: igvName(row.contig), start: row.pos - 1, end: row.pos - 1 + basesOf(row), value });
    }
    const features = [...best.values()].sort((a, b) => a.start - b.start);
    return { type: "wig", name: harmless(DATA.columns[k].key), features, height: 60, graphType: "bar", autoscale: true,
      color: BLUE, altColor: ORANGE, removable: false, searchable: false };
  }

  function geneTrack() {
    if (!DATA.genes.length) return null;
    const features = DATA.genes.map(([contig, start, end, name, strand, exons]) => ({
      chr: igvName(contig), start, end, name: harmless(name), strand: strand === "-" ? "-" : strand === "+" ? "+" : "",
      exons: exons.map(([from, to]) => ({ start: from, end: to })),
    }));
    return { type: "annotation", name: "Genes", features, displayMode: "EXPANDED", height: 64, color: "#3d4a57", removable: false };
  }

  function tracksOf(row) {
    const found = new Map();
    for (const [track, kind, start, step, values] of (DATA.tracks || {})[row.i] || []) {
      const features = [];
      values.forEach((value, i) => {
        if (value !== null) features.push({ chr: igvName(row.contig), start: start + i * step, end: start + (i + 1) * step, value });
      });
      if (!found.has(track)) found.set(track, {});
      found.get(track)[kind] = features;
    }
    const configs = [];
    for (const [track, kinds] of found) {
      const name = harmless(track);
      const wig = (label, features, more) => ({ type: "wig", name: label, features, searchable: false, ...more });
      const both = ["ref", "alt"].filter(kind => kinds[kind]).map(kind =>
        wig(`${name} ${kind.toUpperCase()}`, kinds[kind], kind === "ref" ? { color: "rgb(120,130,140)" } : { color: "rgb(0,114,178)" }));
      if (both.length === 2) configs.push({ type: "merged", name: `${name} REF grey, ALT blue`, height: 70, alpha: 0.6, tracks: both });
      else configs.push(...both.map(x => ({ ...x, height: 60 })));
      if (kinds.delta) configs.push(wig(`${name} ALT - REF`, kinds.delta, { height: 60, autoscale: true, color: "rgb(0,158,115)", altColor: "rgb(213,94,0)" }));
    }
    return configs;
  }

  function extent(row) {
    const found = (DATA.tracks || {})[row.i] || [];
    if (!found.length) return null;
    return Math.max(...found.map(([, , start, step, values]) => Math.max(row.pos - start, start + step * values.length - row.pos)));
  }

  function widths(row) {
    const wide = row && extent(row);
    return wide ? [...WIDTHS, ["tracks", "Tracks", wide]] : WIDTHS;
  }

  function place(row) {
    const options = widths(row);
    const chosen = options.find(([name]) => name === state.width) || (extent(row) ? options[options.length - 1] : options[0]);
    const length = DATA.contigs[row.contig].length, bases = basesOf(row);
    const at = Math.min(Math.max(1, row.pos), length); // a record may lie outside its contig
    const start = Math.max(1, at - chosen[2]), end = Math.min(length, at + bases - 1 + chosen[2]);
    drawZooms(options, chosen[0]);
    return `${igvName(row.contig)}:${start}-${end}`;
  }

  function drawZooms(options, active) {
    clear(byId("zooms")).append(...options.map(([name, title]) => el("button", {
      type: "button", "aria-pressed": String(name === active), on: { click: () => { state.width = name; showInBrowser(state.row); } },
    }, title)));
  }

  function noteOfTracks(row) {
    if (!DATA.tracks) return "";
    if ((DATA.tracks)[row.i]) return "";
    return `No predicted tracks of this allele are in the page; it holds those of ${count(Object.keys(DATA.tracks).length)} alleles.`;
  }

  // Clicks come faster than tracks load: only the last one is followed, one at a time.
  async function showInBrowser(row) {
    const turn = ++state.turn;
    byId("track-note").textContent = noteOfTracks(row);
    const locus = place(row);
    await state.ready;
    await state.busy;
    if (turn !== state.turn || !state.browser) return;
    state.busy = load(row, locus).catch(error => {
      byId("track-note").textContent = `The browser could not show this place: ${error.message}`;
    });
    await state.busy;
    document.documentElement.dataset.shown = row.i;
  }

  async function load(row, locus) {
    const browser = state.browser;
    if (state.shown !== row) {
      for (const name of state.loaded) browser.removeTrackByName(name);
      state.loaded = [];
    }
    await browser.search(locus);
    if (state.shown !== row) {
      const configs = tracksOf(row);
      state.loaded = configs.map(config => config.name);
      if (configs.length) await browser.loadTrackList(configs);
      await mark(row);
      state.shown = row;
    }
  }

  async function mark(row) {
    state.browser.clearROIs();
    await state.browser.loadROI([{ name: "chosen", color: "rgba(230,159,0,0.28)", features: [
      { chr: igvName(row.contig), start: row.pos - 1, end: row.pos - 1 + basesOf(row) }] }]);
  }

  // igv.js would make markup of what it shows of a feature.
  function clicked(track, list) {
    const pairs = (list || []).filter(x => x && x.name);
    const found = pairs.find(x => x.name === "ROW");
    if (track.type === "variant" && found) {
      const row = ROWS[Number(found.value)];
      if (row) { choose(row); show(row); }
      return false;
    }
    return pairs.map(x => `<div>${harmless(x.name)}: ${harmless(x.value)}</div>`).join("") || false;
  }

  async function drawBrowser(row) {
    const tracks = [scoreTrack(), variantTrack(), geneTrack()].filter(Boolean);
    tracks.forEach((track, i) => { track.order = i + 1; });
    state.browser = await igv.createBrowser(byId("browser"), {
      reference: { id: "report", name: harmless(DATA.reference || "bases of the file"), fastaURL: fasta(), indexed: false, wholeGenomeView: false },
      loadDefaultGenomes: false, search: false, showIdeogram: false, showSampleNames: false, showSampleNameButton: false,
      showCenterGuideButton: false, showCircularViewButton: false,
      locus: place(row), tracks,
    });
    state.browser.on("trackclick", clicked);
  }

  // --- the logo of saturation mutagenesis ---------------------------------------------------

  const GLYPHS = {
    A: "M0 100 L38 0 L62 0 L100 100 L78 100 L69 74 L31 74 L22 100 Z M37 56 L63 56 L50 18 Z",
    C: "M100 34 L78 40 Q72 18 52 18 Q22 18 22 50 Q22 82 52 82 Q74 82 79 60 L100 66 Q90 100 52 100 Q0 100 0 50 Q0 0 52 0 Q92 0 100 34 Z",
    G: "M100 30 L78 38 Q70 18 52 18 Q22 18 22 50 Q22 82 54 82 Q68 82 79 73 L79 62 L54 62 L54 45 L100 45 L100 82 Q80 100 54 100 Q0 100 0 50 Q0 0 52 0 Q90 0 100 30 Z",
    T: "M0 0 L100 0 L100 18 L61 18 L61 100 L39 100 L39 18 L0 18 Z",
  };
  const LOGO = { flanks: [[900, 30], [500, 20], [0, 10]], cell: 16, top: 10, tall: 96, gap: 22, row: 14, left: 52 };

  function baseAt(contig, at) {
    const found = DATA.bases.find(([c, start, bases]) => c === contig && start <= at && at < start + bases.length);
    return found ? found[2][at - found[1]] : "N";
  }

  // In a narrow window fewer bases, so that letters stay readable.
  function effectsAround(row, width) {
    const middle = row.pos - 1, flank = LOGO.flanks.find(([least]) => width >= least)[1];
    const found = DATA.ism.find(([contig, start, four]) => contig === row.contig && start <= middle && middle < start + four[0].length);
    if (!found) return null;
    const out = [];
    for (let at = middle - flank; at <= middle + flank; at++) {
      const i = at - found[1];
      const four = found[2].map(column => i >= 0 && i < column.length ? column[i] : null);
      const read = baseAt(row.contig, at);
      // Without a reference, the base that changes nothing is the one there is.
      const ref = "ACGT".includes(read) ? read : guess(four);
      out.push({ at, four, ref });
    }
    return out;
  }

  function guess(four) {
    const zero = four.findIndex(x => x === null || x === 0);
    return zero < 0 || four.every(x => x === null) ? "N" : "ACGT"[zero];
  }

  // White in the middle, orange below 0 and blue above: told apart whatever colours one sees.
  function shade(value, limit) {
    const part = Math.min(1, Math.abs(value) / (limit || 1));
    const [r, g, b] = value < 0 ? [213, 94, 0] : [0, 114, 178];
    return `rgb(${[r, g, b].map(x => Math.round(255 + (x - 255) * part)).join(",")})`;
  }

  function letter(base, x, y, width, height) {
    return svg("path", { d: GLYPHS[base], fill: BASE_COLOURS[base], "fill-rule": "evenodd", transform: `translate(${x} ${y}) scale(${width / 100} ${height / 100})` });
  }

  function drawLogo(row) {
    const holder = clear(byId("logo"));
    if (!DATA.ism) return;
    const cells = effectsAround(row, holder.clientWidth);
    if (!cells) { holder.append(el("p", {}, "No saturation mutagenesis of this place is in the page.")); return; }
    const heights = cells.map(({ four, ref }) => {
      const others = four.filter((x, i) => x !== null && "ACGT"[i] !== ref);
      return others.length && ref !== "N" ? -others.reduce((a, b) => a + b, 0) / others.length : 0;
    });
    const top = Math.max(...heights, 0), low = Math.min(...heights, 0), span = top - low || 1;
    const limit = Math.max(...cells.flatMap(cell => cell.four.map(x => Math.abs(x || 0))));
    const zero = LOGO.top + LOGO.tall * top / span, map = LOGO.top + LOGO.tall + LOGO.gap;
    const width = LOGO.left + cells.length * LOGO.cell + 4, height = map + 4 * LOGO.row + 6;
    const shapes = [];
    cells.forEach(({ at, four, ref }, i) => {
      const x = LOGO.left + i * LOGO.cell, tall = LOGO.tall * Math.abs(heights[i]) / span;
      if (at >= row.pos - 1 && at < row.pos - 1 + basesOf(row)) shapes.push(svg("rect", { x, y: LOGO.top - 6, width: LOGO.cell, height: height - LOGO.top, fill: "#e69f00", "fill-opacity": 0.2 }));
      if (ref !== "N" && tall > 0.3) shapes.push(letter(ref, x + 0.8, heights[i] > 0 ? zero - tall : zero, LOGO.cell - 1.6, tall));
      if ((at + 1) % 10 === 0) shapes.push(svg("text", { x: x + LOGO.cell / 2, y: map - 7, "text-anchor": "middle" }, count(at + 1)));
      four.forEach((value, b) => {
        const isRef = "ACGT"[b] === ref, isAlt = at === row.pos - 1 && row.alt === "ACGT"[b];
        shapes.push(svg("rect", { x: x + 0.5, y: map + b * LOGO.row + 0.5, width: LOGO.cell - 1, height: LOGO.row - 1,
          fill: isRef || value === null ? "#e8ecf0" : shade(value, limit), ...(isAlt ? { stroke: "#1b2733", "stroke-width": 1.6 } : {}) },
        svg("title", {}, `${row.chrom}:${count(at + 1)} ${ref}>${"ACGT"[b]} ${isRef ? "reference" : value === null ? "no value" : number(value)}`)));
      });
    });
    const axis = [[top, LOGO.top + 4], [0, zero + 4], [low, LOGO.top + LOGO.tall + 4]].filter(([value], i) => i === 1 || Math.abs(value) > 0.12 * span);
    const legend = el("span", { class: "legend", style: { background: `linear-gradient(90deg, ${shade(-1, 1)}, #fff, ${shade(1, 1)})` } });
    holder.append(el("figure", { style: { margin: 0 } },
      svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Saturation mutagenesis around ${placeText(row)}` },
        svg("line", { x1: LOGO.left, x2: width - 4, y1: zero, y2: zero, stroke: "#9aa5b1", "stroke-width": 0.8 }),
        ...axis.map(([value, y]) => svg("text", { x: LOGO.left - 6, y, "text-anchor": "end" }, number(value))),
        ...[..."ACGT"].map((base, b) => svg("text", { x: LOGO.left - 6, y: map + (b + 0.8) * LOGO.row, "text-anchor": "end" }, base)), ...shapes),
      el("figcaption", {}, "Saturation mutagenesis. Letters: minus the mean effect of the three other bases. Below, the effect of each base: ",
        number(-limit), legend, number(limit), ", grey: the reference, or no value.")));
  }

  // --- how it was made ---------------------------------------------------------------------

  function drawMade() {
    const rows = DATA.notes.map(([name, value]) => [name, el("code", {}, value)]);
    if (DATA.reference) rows.push(["Bases of the browser", DATA.reference]);
    for (const note of DATA.leftOut) rows.push(["Left out", note]);
    const holder = byId("made");
    holder.append(el("table", { class: "made" }, el("tbody", {}, ...rows.map(([name, value]) => el("tr", {}, el("th", {}, name), el("td", {}, value))))));
    const keys = [...new Set(DATA.models.flatMap(model => Object.keys(model.fields)))];
    if (keys.length) {
      holder.append(el("div", { class: "scroll" }, el("table", { class: "made" },
        el("thead", {}, el("tr", {}, el("th", {}, "Model"), ...DATA.models.map(model => el("th", {}, model.tag)))),
        el("tbody", {}, ...keys.map(key => el("tr", {}, el("th", {}, key), ...DATA.models.map(model => el("td", {}, model.fields[key] ?? ""))))))));
    }
    holder.append(el("details", { style: { marginTop: "8px" } }, el("summary", {}, "Meaning of the columns"),
      el("table", { class: "made" }, el("tbody", {}, ...DATA.columns.map(x => el("tr", {}, el("th", {}, x.key), el("td", {}, x.about)))))));
  }

  function drawFoot() {
    const names = DATA.packages.map(x => `${x.title} ${x.version} (${x.licence})`).join(" and ");
    byId("foot").append(
      el("p", {}, `Made by glm_annotate ${DATA.version} (Apache-2.0). The page holds ${names}; it needs no network and sends nothing.`),
      el("details", {}, el("summary", {}, "Licences"), ...DATA.packages.map(x => el("div", {},
        el("p", {}, el("b", {}, `${x.title} ${x.version}`), x.contains ? `, which contains ${x.contains}` : ""), el("pre", {}, x.text)))));
  }

  // --- start -------------------------------------------------------------------------------

  function start() {
    // The allele of the largest score is what one looks for.
    const first = ROWS.reduce((best, row) => best && Math.abs(firstScore(best) ?? -1) >= Math.abs(firstScore(row) ?? -1) ? best : row, null);
    if (!first) {
      drawChosen(null);
      document.documentElement.dataset.report = "ready";
      return;
    }
    state.ready = drawBrowser(first).catch(error => {
      byId("browser").replaceChildren(el("p", { class: "alarm" }, `The genome browser did not start: ${error.message}`));
    });
    show(first);
    choose(first).then(() => { document.documentElement.dataset.report = "ready"; });
  }

  drawHead();
  drawHistograms();
  drawStatuses();
  drawMade();
  drawFoot();
  drawTable();
})();
