// What of the page in the window keeps somebody from using it. Gives a list of sentences.

const wrongs = [];
const short = element => element.outerHTML.replace(/\s+/g, ' ').slice(0, 100);

// Contrast, as WCAG 2 computes it.

// A colour is `rgb(r, g, b, a)` of 0-255, or after mixing `color(srgb r g b / a)` of 0-1.
const parts = colour => {
  const numbers = colour.match(/[\d.]+(e-?\d+)?/g)?.map(Number) ?? [0, 0, 0, 0];
  const [r, g, b, a = 1] = numbers;
  return colour.startsWith('color(srgb') ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
};
const over = ([r, g, b, a], under) => [r, g, b].map((part, at) => part * a + under[at] * (1 - a));
const luminance = colour => {
  const [r, g, b] = colour.map(part => part / 255).map(part => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const isDrawing = element => element instanceof SVGElement && !(element instanceof SVGSVGElement);
const ground = getComputedStyle(document.body).backgroundColor;

// What is painted below a text, the uppermost first.
const below = (element, box) => {
  const painted = [];
  if (isDrawing(element)) {
    for (const shape of element.ownerSVGElement.querySelectorAll('rect, circle, path')) {
      const { left, right, top, bottom } = shape.getBoundingClientRect();
      const [x, y] = [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
      if (left <= x && x <= right && top <= y && y <= bottom && shape.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING)
        painted.unshift(getComputedStyle(shape).fill);
    }
  }
  for (let at = element; at; at = at.parentElement) painted.push(getComputedStyle(at).backgroundColor);
  return painted.filter(colour => colour !== 'none');
};

const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || element.closest('title, script, style, .sr, option')) continue;
  const range = document.createRange();
  range.selectNodeContents(texts.currentNode);
  const box = range.getBoundingClientRect();
  if (!box.width || !element.checkVisibility({ visibilityProperty: true })) continue;
  const style = getComputedStyle(element);
  let background = parts(ground).slice(0, 3);
  for (const colour of below(element, box).reverse()) background = over(parts(colour), background);
  let [r, g, b, a] = parts(isDrawing(element) ? style.fill : style.color);
  for (let at = element; at; at = at.parentElement) a *= Number(getComputedStyle(at).opacity);
  const ratio = contrast(over([r, g, b, a], background), background);
  const size = parseFloat(style.fontSize);
  const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (ratio < (isLarge ? 3 : 4.5)) wrongs.push(`contrast of ${ratio.toFixed(2)}: "${texts.currentNode.data.trim().slice(0, 40)}" in ${short(element)}`);
}

// What programs that read a page aloud go by.

if (!document.documentElement.lang) wrongs.push('the page does not say its language');
if (document.querySelectorAll('h1').length !== 1) wrongs.push('there is not one h1');
let depth = 1;
for (const heading of document.querySelectorAll('h1, h2, h3, h4')) {
  if (!heading.checkVisibility()) continue;
  const own = Number(heading.tagName[1]);
  if (own > depth + 1) wrongs.push(`a heading of depth ${own} below one of ${depth}: ${short(heading)}`);
  depth = own;
}
const known = new Set();
for (const { id } of document.querySelectorAll('[id]')) {
  if (known.has(id)) wrongs.push(`the id ${id} is there twice`);
  known.add(id);
}
for (const image of document.querySelectorAll('img:not([alt])')) wrongs.push(`an image without words: ${short(image)}`);
for (const head of document.querySelectorAll('thead th')) {
  const isFirstPart = head.textContent.trim() || head.getAttribute('aria-label');
  if (!isFirstPart && head.closest('table').querySelector('tbody')) wrongs.push(`a column without a name: ${short(head.closest('tr'))}`);
}

return wrongs;
