// The map: points drawn by WebGL (or by a plain canvas), moved, zoomed, and selected with a lasso.
//
// data: { source, count, groups, lasso, colours }   source: places as float32 pairs, then a byte of group, then 32 bytes
// of content hash for each point.
// Rule: positions are the map's own, from -1 to 1; what the browser sends back is a hash or a polygon.

const SIZE = 4, NEAR = 10, CELLS = 200, THUMB = 76, MOST_THUMBS = 240, MOST_CORNERS = 48, ALPHA = 217;
// Where the browser cannot keep up while the map is moved, some points stand for all; so few at least.
const FEWEST = 10000, LATE_MS = 25;
const REST_MS = 150, AGAIN_MS = 1000, MOST_TRIES = 3;

const VERTEX = `attribute vec2 place; attribute vec4 paint; uniform vec2 middle; uniform vec2 zoom; uniform float size;
varying vec4 colour;
void main() {
  gl_Position = vec4((place - middle) * zoom, 0.0, 1.0);
  gl_PointSize = size;
  colour = paint;
}`;
const FRAGMENT = `precision mediump float; varying vec4 colour;
void main() {
  vec2 apart = gl_PointCoord - 0.5;
  if (dot(apart, apart) > 0.25) discard;
  gl_FragColor = colour;
}`;

const hexOf = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const bytesOf = (hex) => [...[1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)), ALPHA];

// The points in another order: however many of the first are drawn, they are spread over all. Colours are bytes.
const spread = (places, groups, colours) => {
  const count = groups.length, step = Math.ceil(count / FEWEST);
  const spreadPlaces = new Float32Array(2 * count), paints = new Uint32Array(count);
  const known = new Uint32Array(new Uint8Array(colours.flatMap(bytesOf)).buffer);
  let at = 0;
  for (let first = 0; first < step; first += 1) {
    for (let number = first; number < count; number += step) {
      spreadPlaces[2 * at] = places[2 * number];
      spreadPlaces[2 * at + 1] = places[2 * number + 1];
      paints[at] = known[groups[number] % known.length];
      at += 1;
    }
  }
  return { places: spreadPlaces, paints };
};

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

// What draws so many of the first points.
const openWebGL = (canvas, { places, paints }) => {
  const gl = canvas.getContext("webgl", { antialias: false });
  if (!gl) return null;
  const program = compile(gl);
  [["place", places, 2, gl.FLOAT, false], ["paint", paints, 4, gl.UNSIGNED_BYTE, true]].forEach(([name, values, ...how]) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    const at = gl.getAttribLocation(program, name);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, ...how, 0, 0);
  });
  const where = (name) => gl.getUniformLocation(program, name);
  const [middle, zoom, size] = ["middle", "zoom", "size"].map(where);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
  return (view, count) => {
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(middle, view.x, view.y);
    gl.uniform2f(zoom, (2 * view.scale) / view.width, (2 * view.scale) / view.height);
    gl.uniform1f(size, view.dot * devicePixelRatio);
    gl.drawArrays(gl.POINTS, 0, count);
  };
};

// Pixel by pixel: a rectangle for each point takes five times as long.
const openPlain = (canvas, { places, paints }) => {
  const pen = canvas.getContext("2d");
  let picture = null, pixels = null;
  return (view, count) => {
    const { width, height } = canvas, scale = view.scale * devicePixelRatio;
    if (picture?.width !== width || picture.height !== height) {
      picture = pen.createImageData(width, height);
      pixels = new Uint32Array(picture.data.buffer);
    }
    pixels.fill(0);
    const size = Math.max(1, Math.round(view.dot * devicePixelRatio));
    const left = (width - size) / 2 - view.x * scale, top = (height - size) / 2 + view.y * scale;
    for (let number = 0; number < count; number += 1) {
      const x = Math.round(left + places[2 * number] * scale), y = Math.round(top - places[2 * number + 1] * scale);
      if (x < 0 || y < 0 || x + size > width || y + size > height) continue;
      for (let at = y * width + x, end = at + size * width; at < end; at += width) pixels.fill(paints[number], at, at + size);
    }
    pen.putImageData(picture, 0, 0);
  };
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
    Object.assign(this, { root, data, tell, x: 0, y: 0, scale: 0, dot: SIZE, mode: "move", corners: null });
    [this.canvas, this.ink] = root.querySelectorAll("canvas");
    this.thumbs = root.querySelector("figure");
    this.tip = root.querySelector("aside");
    this.note = root.querySelector("p");
  }

  // Where other points take the place of those that were shown, what is in sight stays.
  follow({ x, y, scale, least, mode }) {
    Object.assign(this, { x, y, scale, least, mode });
  }

  load() {
    const isWanted = () => this.root.view === this;
    fetch(this.data.source).then((answer) => (answer.ok ? answer.arrayBuffer() : Promise.reject(answer))).then(
      (buffer) => { if (isWanted()) this.take(buffer); },
      () => { if (isWanted()) this.miss(); },
    );
  }

  // An image was hidden, or a generation published, since the page was drawn: drawn again, it names other points. Where
  // it names the same, the server may have been away.
  miss() {
    this.root.missed = (this.root.missed ?? 0) + 1;
    this.note.hidden = this.root.missed < MOST_TRIES;
    if (this.root.missed >= MOST_TRIES) return;
    this.tell("gone", this.data.source);
    setTimeout(() => { if (this.root.view === this) this.load(); }, AGAIN_MS);
  }

  take(buffer) {
    const { count } = this.data;
    this.places = new Float32Array(buffer, 0, 2 * count);
    this.groups = new Uint8Array(buffer, 8 * count, count);
    this.hashes = new Uint8Array(buffer, 9 * count, 32 * count);
    this.cells = sortIntoCells(this.places);
    const points = spread(this.places, this.groups, this.data.colours), open = openWebGL(this.canvas, points);
    this.paint = open ?? openPlain(this.canvas, points);
    Object.assign(this, { moving: this.groups.length, late: 0 });
    this.root.dataset.drawnBy = open ? "webgl" : "canvas";
    this.root.missed = 0;
    this.note.hidden = true;
    this.resize();
    this.root.dataset.ready = "yes";
  }

  // Who sees the whole map goes on to see it; who looks at a part of it stays there.
  resize() {
    const isWhole = !this.scale || (this.scale === this.least && this.x === 0 && this.y === 0);
    this.measure();
    if (isWhole) this.fit(); else this.draw();
  }

  measure() {
    const { width, height } = this.root.getBoundingClientRect();
    Object.assign(this, { width, height });
    [this.canvas, this.ink].forEach((canvas) => {
      canvas.width = width * devicePixelRatio;
      canvas.height = height * devicePixelRatio;
    });
    this.least = (Math.min(width, height) / 2) * 0.95;
  }

  fit() {
    Object.assign(this, { x: 0, y: 0, scale: this.least });
    this.draw();
  }

  draw(isMoving = false) {
    this.isMoving = isMoving;
    if (!this.paint || this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      clearTimeout(this.resting);
      // Others have taken their place, or the map has none in the page at present.
      if (this.root.view !== this || !this.scale) return;
      this.paintFrame();
      this.drawLasso();
      this.thumbs.replaceChildren();
      this.resting = setTimeout(() => this.rest(), REST_MS);
    });
  }

  // A browser that has not drawn yet what it was told last lets the next frame wait.
  keepUp() {
    const started = performance.now();
    requestAnimationFrame(() => {
      this.late = performance.now() - started > LATE_MS ? this.late + 1 : 0;
      if (this.late < 2) return;
      this.moving = Math.max(Math.min(FEWEST, this.groups.length), Math.ceil(this.moving / 2));
      this.late = 0;
    });
  }

  paintFrame() {
    if (this.isMoving) this.keepUp();
    this.dot = Math.min(9, SIZE * Math.sqrt(this.scale / this.least));
    this.paint(this, this.isMoving ? this.moving : this.groups.length);
    this.frames = (this.frames ?? 0) + 1;
    this.root.dataset.frames = this.frames;
  }

  rest() {
    if (this.root.view !== this) return;
    const isSample = this.isMoving && this.moving < this.groups.length;
    this.isMoving = false;
    if (isSample) this.paintFrame();
    this.showThumbs();
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
    this.draw(true);
  }

  move(x, y) {
    this.x = Math.max(-1, Math.min(1, this.x - x / this.scale));
    this.y = Math.max(-1, Math.min(1, this.y + y / this.scale));
    this.draw(true);
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

// A gesture lasts from the first finger (or the mouse's button) to the last one; only one without any movement is a
// click. Of each finger the last event is kept.
const listen = (view) => {
  const { root, canvas } = view;
  const fingers = new Map();
  let moved = 0;
  const apart = (one, other) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    // A second finger zooms, whatever the first was about to do.
    moved = fingers.size ? Infinity : 0;
    view.corners = !fingers.size && (view.mode === "lasso" || event.shiftKey) ? [view.toMap(event)] : null;
    fingers.set(event.pointerId, event);
  };
  canvas.onpointermove = (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) {
      if (!fingers.size) view.showTip(view.places ? view.find(event) : -1);
      return;
    }
    fingers.set(event.pointerId, event);
    moved += apart(event, before);
    view.tip.hidden = true;
    const other = [...fingers.values()].find((one) => one.pointerId !== event.pointerId);
    // What is under the finger that rests stays under it.
    if (other) view.zoom(apart(event, other) / Math.max(1, apart(before, other)), view.toMap(other));
    else if (view.corners) { view.corners.push(view.toMap(event)); view.drawLasso(); }
    else view.move(event.clientX - before.clientX, event.clientY - before.clientY);
  };
  canvas.onpointerup = (event) => {
    if (!fingers.delete(event.pointerId) || fingers.size) return;
    if (view.corners) view.endLasso();
    else if (moved < 4 && view.places) {
      const number = view.find(event);
      if (number >= 0) view.tell("similar", view.hashOf(number));
    }
  };
  canvas.onpointercancel = (event) => {
    fingers.delete(event.pointerId);
    moved = Infinity;
    view.corners = null;
    view.draw();
  };
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
  const root = parentElement.querySelector("section"), before = root.view;
  if (before?.data.source === data.source) {
    Object.assign(before, { data, tell: setTriggerValue });
    before.draw();
  } else {
    root.view = new View(root, data, setTriggerValue);
    if (before) root.view.follow(before);
    listen(root.view);
    root.view.load();
  }
  root.watcher ??= new ResizeObserver(() => { if (root.view?.paint) root.view.resize(); });
  root.watcher.observe(root);
  return () => {
    root.watcher.disconnect();
    root.view = null;
  };
};
