// The map: points drawn by WebGL (or by a plain canvas), moved, zoomed, and selected with a lasso.
//
// data: { source, count, groups, lasso, colours }   source: places as float32 pairs, then a byte of group, then 32 bytes
// of content hash for each point.
// Rule: positions are the map's own, from -1 to 1; what the browser sends back is a hash or a polygon.

const SIZE = 4, NEAR = 10, CELLS = 200, THUMB = 76, MOST_THUMBS = 240, MOST_CORNERS = 48;

const VERTEX = `attribute vec2 place; attribute float group; uniform vec2 middle; uniform vec2 zoom; uniform float size;
uniform vec3 colours[12]; varying vec3 colour;
void main() {
  gl_Position = vec4((place - middle) * zoom, 0.0, 1.0);
  gl_PointSize = size;
  int mine = int(mod(group, 12.0));
  colour = colours[0];
  for (int i = 0; i < 12; i++) if (i == mine) colour = colours[i];
}`;
const FRAGMENT = `precision mediump float; varying vec3 colour;
void main() { if (length(gl_PointCoord - 0.5) > 0.5) discard; gl_FragColor = vec4(colour, 0.85); }`;

const hexOf = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);

const compile = (gl) => {
  const program = gl.createProgram();
  [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]].forEach(([kind, text]) => {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  });
  gl.linkProgram(program);
  gl.useProgram(program);
  return program;
};

const openWebGL = (canvas, places, groups, colours) => {
  const gl = canvas.getContext("webgl", { antialias: false });
  if (!gl) return null;
  const program = compile(gl);
  [["place", places, 2, gl.FLOAT], ["group", groups, 1, gl.UNSIGNED_BYTE]].forEach(([name, values, width, kind]) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    const at = gl.getAttribLocation(program, name);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, width, kind, false, 0, 0);
  });
  const where = (name) => gl.getUniformLocation(program, name);
  const [middle, zoom, size] = ["middle", "zoom", "size"].map(where);
  gl.uniform3fv(where("colours"), colours.flatMap(rgb));
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
  return (view) => {
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(middle, view.x, view.y);
    gl.uniform2f(zoom, (2 * view.scale) / view.width, (2 * view.scale) / view.height);
    gl.uniform1f(size, view.dot * devicePixelRatio);
    gl.drawArrays(gl.POINTS, 0, groups.length);
  };
};

const openPlain = (canvas, places, groups, colours) => (view) => {
  const pen = canvas.getContext("2d");
  pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  pen.clearRect(0, 0, view.width, view.height);
  groups.forEach((group, number) => {
    const x = view.width / 2 + (places[2 * number] - view.x) * view.scale;
    const y = view.height / 2 - (places[2 * number + 1] - view.y) * view.scale;
    pen.fillStyle = colours[group % 12];
    pen.fillRect(x - view.dot / 2, y - view.dot / 2, view.dot, view.dot);
  });
};

// Which points lie in which cell of a coarse grid: what is under a pointer is found among a few.
const sortIntoCells = (places) => {
  const cells = new Map();
  for (let number = 0; number < places.length / 2; number += 1) {
    const cell = cellOf(places[2 * number], places[2 * number + 1]);
    if (cells.has(cell)) cells.get(cell).push(number); else cells.set(cell, [number]);
  }
  return cells;
};
const along = (value) => Math.max(0, Math.min(CELLS - 1, Math.floor(((value + 1) / 2) * CELLS)));
const cellOf = (x, y) => along(y) * CELLS + along(x);

class View {
  constructor(root, data, tell) {
    Object.assign(this, { root, data, tell, x: 0, y: 0, scale: 1, dot: SIZE, mode: "move", corners: null });
    [this.canvas, this.ink] = root.querySelectorAll("canvas");
    this.thumbs = root.querySelector("figure");
    this.tip = root.querySelector("aside");
  }

  take(buffer) {
    const { count } = this.data;
    this.places = new Float32Array(buffer, 0, 2 * count);
    this.groups = new Uint8Array(buffer, 8 * count, count);
    this.hashes = new Uint8Array(buffer, 9 * count, 32 * count);
    this.cells = sortIntoCells(this.places);
    const open = openWebGL(this.canvas, this.places, this.groups, this.data.colours);
    this.paint = open ?? openPlain(this.canvas, this.places, this.groups, this.data.colours);
    this.root.dataset.drawnBy = open ? "webgl" : "canvas";
    this.fit();
    this.root.dataset.ready = "yes";
  }

  fit() {
    const { width, height } = this.root.getBoundingClientRect();
    Object.assign(this, { width, height });
    [this.canvas, this.ink].forEach((canvas) => {
      canvas.width = width * devicePixelRatio;
      canvas.height = height * devicePixelRatio;
    });
    this.least = (Math.min(width, height) / 2) * 0.95;
    Object.assign(this, { x: 0, y: 0, scale: this.least });
    this.draw();
  }

  draw() {
    if (!this.paint || this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      this.dot = Math.min(9, SIZE * Math.sqrt(this.scale / this.least));
      this.paint(this);
      this.frames = (this.frames ?? 0) + 1;
      this.root.dataset.frames = this.frames;
      this.drawLasso();
      clearTimeout(this.resting);
      this.thumbs.replaceChildren();
      this.resting = setTimeout(() => this.showThumbs(), 150);
    });
  }

  toMap({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return [
      this.x + (clientX - box.left - this.width / 2) / this.scale,
      this.y - (clientY - box.top - this.height / 2) / this.scale,
    ];
  }

  toScreen([x, y]) {
    return [this.width / 2 + (x - this.x) * this.scale, this.height / 2 - (y - this.y) * this.scale];
  }

  zoom(factor, [x, y] = [this.x, this.y]) {
    const scale = Math.max(this.least * 0.8, Math.min(this.least * 400, this.scale * factor));
    this.x = x - ((x - this.x) * this.scale) / scale;
    this.y = y - ((y - this.y) * this.scale) / scale;
    this.scale = scale;
    this.draw();
  }

  move(x, y) {
    this.x = Math.max(-1, Math.min(1, this.x - x / this.scale));
    this.y = Math.max(-1, Math.min(1, this.y + y / this.scale));
    this.draw();
  }

  find(event) {
    const [x, y] = this.toMap(event);
    const reach = NEAR / this.scale;
    let nearest = -1, least = reach * reach;
    for (let row = along(y - reach); row <= along(y + reach); row += 1) {
      for (let column = along(x - reach); column <= along(x + reach); column += 1) {
        (this.cells.get(row * CELLS + column) ?? []).forEach((number) => {
          const apart = (this.places[2 * number] - x) ** 2 + (this.places[2 * number + 1] - y) ** 2;
          if (apart < least) [nearest, least] = [number, apart];
        });
      }
    }
    return nearest;
  }

  hashOf(number) {
    return hexOf(this.hashes.subarray(32 * number, 32 * number + 32));
  }

  showTip(number) {
    this.tip.hidden = number < 0;
    if (number < 0) return;
    const [left, top] = this.toScreen([this.places[2 * number], this.places[2 * number + 1]]);
    const picture = this.tip.querySelector("img");
    const source = `/t/${this.hashOf(number)}.webp`;
    if (picture.getAttribute("src") !== source) picture.src = source;
    Object.assign(this.tip.style, {
      left: `${Math.min(left + 12, this.width - 150)}px`, top: `${Math.min(top + 12, this.height - 150)}px`,
    });
  }

  // Where few points are in sight, their pictures stand at their places; none over another.
  showThumbs() {
    if (!this.places) return;
    const taken = new Set(), found = [];
    const [left, top, right, bottom] = [
      this.x - this.width / 2 / this.scale, this.y + this.height / 2 / this.scale,
      this.x + this.width / 2 / this.scale, this.y - this.height / 2 / this.scale,
    ];
    if (this.scale < this.least * 1.8) return;
    for (let row = along(bottom); row <= along(top); row += 1) {
      for (let column = along(left); column <= along(right); column += 1) {
        for (const number of this.cells.get(row * CELLS + column) ?? []) {
          const [x, y] = this.toScreen([this.places[2 * number], this.places[2 * number + 1]]);
          const cell = `${Math.floor(x / THUMB)} ${Math.floor(y / THUMB)}`;
          if (x < 0 || y < 0 || x > this.width || y > this.height || taken.has(cell)) continue;
          taken.add(cell);
          found.push([number, Math.floor(x / THUMB) * THUMB, Math.floor(y / THUMB) * THUMB]);
        }
      }
    }
    this.thumbs.replaceChildren(...found.slice(0, MOST_THUMBS).map(([number, x, y]) => {
      const picture = new Image();
      Object.assign(picture, { src: `/t/${this.hashOf(number)}.webp`, alt: "", loading: "lazy" });
      Object.assign(picture.style, { left: `${x}px`, top: `${y}px` });
      return picture;
    }));
  }

  drawLasso() {
    const pen = this.ink.getContext("2d");
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    const corners = this.corners ?? this.data.lasso;
    if (!corners?.length) return;
    pen.beginPath();
    corners.map((corner) => this.toScreen(corner)).forEach(([x, y], at) => (at ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.lineWidth = 2;
    pen.strokeStyle = getComputedStyle(this.root).color;
    pen.stroke();
    pen.globalAlpha = 0.12;
    pen.fillStyle = pen.strokeStyle;
    pen.fill();
    pen.globalAlpha = 1;
  }

  endLasso() {
    const every = Math.max(1, Math.ceil(this.corners.length / MOST_CORNERS));
    const corners = this.corners.filter((_, at) => at % every === 0);
    this.corners = null;
    if (corners.length >= 3) {
      this.tell("lasso", corners.map((corner) => corner.map((value) => value.toFixed(3)).join(",")).join(";"));
    }
    this.draw();
  }
}

const listen = (view) => {
  const { root, canvas } = view;
  const fingers = new Map();
  let from = null, moved = 0;
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    from = event;
    moved = 0;
    if (view.mode === "lasso" || event.shiftKey) view.corners = [view.toMap(event)];
  };
  canvas.onpointermove = (event) => {
    if (!from) { view.showTip(view.places ? view.find(event) : -1); return; }
    if (fingers.size === 2 && fingers.has(event.pointerId)) {
      const other = [...fingers].find(([id]) => id !== event.pointerId)[1], before = fingers.get(event.pointerId);
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      view.zoom(apart(event) / Math.max(1, apart(before)), view.toMap(event));
      fingers.set(event.pointerId, event);
      return;
    }
    moved += Math.abs(event.clientX - from.clientX) + Math.abs(event.clientY - from.clientY);
    if (view.corners) { view.corners.push(view.toMap(event)); view.drawLasso(); }
    else view.move(event.clientX - from.clientX, event.clientY - from.clientY);
    from = event;
    view.tip.hidden = true;
  };
  canvas.onpointerup = (event) => {
    fingers.delete(event.pointerId);
    if (view.corners) view.endLasso();
    else if (from && moved < 4) {
      const number = view.find(event);
      if (number >= 0) view.tell("similar", view.hashOf(number));
    }
    from = null;
  };
  canvas.onpointercancel = canvas.onpointerup;
  canvas.onpointerleave = () => { view.tip.hidden = true; };
  canvas.onwheel = (event) => {
    event.preventDefault();
    view.zoom(Math.exp(-event.deltaY / 300), view.toMap(event));
  };
  const does = {
    in: () => view.zoom(1.6), out: () => view.zoom(1 / 1.6), whole: () => view.fit(),
    left: () => view.move(80, 0), right: () => view.move(-80, 0), up: () => view.move(0, 80), down: () => view.move(0, -80),
    all: () => {
      const [x, y] = [view.width / 2 / view.scale, view.height / 2 / view.scale];
      view.corners = [[-x, -y], [x, -y], [x, y], [-x, y]].map(([a, b]) => [view.x + a, view.y + b]);
      view.endLasso();
    },
    lasso: (button) => {
      view.mode = view.mode === "lasso" ? "move" : "lasso";
      button.ariaPressed = String(view.mode === "lasso");
      root.dataset.mode = view.mode;
    },
  };
  root.querySelector("nav").onclick = ({ target }) => {
    const button = target.closest("button");
    if (button) does[button.name](button);
  };
};

export default ({ data, parentElement, setTriggerValue }) => {
  const root = parentElement.querySelector("section");
  if (root.view?.data.source === data.source) {
    Object.assign(root.view, { data, tell: setTriggerValue });
    root.view.draw();
    return undefined;
  }
  const view = new View(root, data, setTriggerValue);
  root.view = view;
  listen(view);
  fetch(data.source).then((answer) => answer.arrayBuffer()).then((buffer) => {
    if (root.view === view) view.take(buffer);
  });
  const watcher = new ResizeObserver(() => { if (view.paint) view.fit(); });
  watcher.observe(root);
  return () => { watcher.disconnect(); root.view = null; };
};
