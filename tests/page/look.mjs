// Looks at the status page in Chromium. Prints what it checked; ends with 1 at the first thing that is wrong.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import puppeteer from "puppeteer-core";

const { chromium, url, accounts, pictures } = JSON.parse(process.argv[2]);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const WAIT_MS = 60_000;
// What no text of a directory may contain once it is on the page: characters that turn the direction or hide.
const HARMFUL = /[\u0000-\u0008\u000b-\u001f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/u;

// As root Chromium takes no sandbox. It only sees a page of loopback.
const browser = await puppeteer.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"],
});
try {
  await look();
} finally {
  await browser.close();
}

async function look() {
  await withoutJavaScript();
  for (const scheme of ["light", "dark"]) {
    for (const width of [1280, 360]) await accessible(scheme, width);
  }
  await byKeyboard();
  await live();
}

async function open(settings = {}) {
  const page = await browser.newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.problems = [];
  page.on("console", (line) => line.type() === "error" && page.problems.push(line.text()));
  page.on("pageerror", (error) => page.problems.push(String(error)));
  // The console says that something was not found, and not what.
  page.on("response", (response) => response.status() >= 400 && page.problems.push(`${response.url()}: ${response.status()}`));
  page.on("requestfailed", (request) => page.problems.push(`${request.url()} failed`));
  await page.setViewport({ width: settings.width ?? 1280, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: settings.scheme ?? "light" }]);
  if (settings.script === false) await page.setJavaScriptEnabled(false);
  const answer = await page.goto(url, { waitUntil: "load" });
  assert.equal(answer.status(), 200);
  assert.match(answer.headers()["content-security-policy"], /default-src 'none'/);
  return page;
}

async function withoutJavaScript() {
  const page = await open({ script: false });
  const text = await page.content();
  assert.equal((text.match(/id="account-/g) ?? []).length, accounts);
  assert.match(text, /http-equiv="refresh"/, "it loads itself again");
  await page.close();
  console.log(`without JavaScript: ${accounts} accounts`);
}

async function accessible(scheme, width) {
  const page = await open({ scheme, width });
  assert.equal(await page.$$eval("main tr[id^=account-]", (rows) => rows.length), accounts);
  const title = await page.title();
  assert.equal(title, "(2) scimtail", "no name of a directory is run as a script");
  const shown = await page.$eval("body", (body) => body.textContent);
  assert.ok(!HARMFUL.test(shown), `a harmful character is shown: ${JSON.stringify(shown.match(HARMFUL))}`);
  assert.ok(shown.includes('<script>document.title="owned"</script>'), "markup is shown as text");
  const icon = await page.$eval("link[rel=icon]", (link) => fetch(link.href).then((answer) => answer.headers.get("content-type")));
  assert.equal(icon, "image/svg+xml", "a browser need not ask for /favicon.ico");
  assert.equal(await page.$$eval("main script, main img, main h1", (found) => found.length), 0);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(overflow <= 0, `at ${width} px the page is ${overflow} px too wide`);
  await page.evaluate(axe);
  const { violations, passes } = await page.evaluate(() => globalThis.axe.run());
  const told = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html).slice(0, 3)}`);
  assert.deepEqual(told, []);
  assert.ok(passes.length > 10, "axe looked at something");
  assert.deepEqual(page.problems, []);
  if (pictures) {
    mkdirSync(pictures, { recursive: true });
    await page.screenshot({ path: path.join(pictures, `${scheme}-${width}.png`), fullPage: true });
  }
  await page.close();
  console.log(`${scheme}, ${width} px: axe finds no violation, ${passes.length} rules pass`);
}

async function byKeyboard() {
  const page = await open();
  // Reaches each summary, and opens and closes it.
  const count = await page.$$eval("summary", (found) => found.length);
  assert.ok(count >= 3, `${count} accounts have more to say`);
  const reached = new Set();
  for (let step = 0; step < 4 * count && reached.size < count; step += 1) {
    await page.keyboard.press("Tab");
    const id = await page.evaluate(() => document.activeElement.closest("details")?.id);
    if (id) reached.add(id);
  }
  assert.equal(reached.size, count, "Tab reaches each of them");
  const before = await page.evaluate(() => document.activeElement.closest("details").open);
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.closest("details").open), !before);
  await page.close();
  console.log(`by keyboard: ${count} accounts open and close`);
}

async function live() {
  const page = await open();
  // A person opens one. What changes elsewhere leaves it open, and leaves its elements in place.
  await page.evaluate(() => {
    const closed = [...document.querySelectorAll("details")].find((details) => !details.open);
    closed.open = true;
    closed.dataset.mine = "yes";
    globalThis.opened = closed;
    globalThis.rows = [...document.querySelectorAll("tr[id^=account-]")];
  });
  console.log("now change");
  await page.waitForFunction(() => document.querySelector("#changes").innerText.includes("arrives-live@acme.example"));
  const kept = await page.evaluate(() => ({
    opened: globalThis.opened.isConnected && globalThis.opened.open,
    rows: globalThis.rows.every((row) => row.isConnected),
  }));
  assert.deepEqual(kept, { opened: true, rows: true });
  assert.deepEqual(page.problems, []);
  await page.close();
  console.log("live: a change arrives by itself, and nothing else moves");
}
