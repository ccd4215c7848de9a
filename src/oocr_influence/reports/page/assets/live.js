// A live page asks its server now and then, and draws what is new without closing what is open.

const EVERY = 3000;

async function listen() {
  let tag = document.documentElement.dataset.live,
    heard = new Date();
  const tell = (lost) => {
    const sign = document.getElementById("live");
    sign.hidden = false;
    sign.className = lost ? "lost" : "";
    sign.textContent = lost
      ? `not heard since ${heard.toLocaleTimeString()}`
      : `live, ${heard.toLocaleTimeString()}`;
  };
  for (;;) {
    try {
      const answer = await fetch("data.json", {
        headers: { "If-None-Match": tag },
        cache: "no-store",
      });
      if (!answer.ok && answer.status !== 304) throw new Error(answer.status);
      heard = new Date();
      if (answer.status === 200) {
        const found = await answer.json(),
          unpackedDetail = await unpacked(found.detail);
        tag = answer.headers.get("ETag");
        const place = scrollY;
        take(found.head, unpackedDetail);
        redrawAll();
        scrollTo({ top: place, behavior: "instant" });
      }
      tell(false);
    } catch {
      tell(true);
    }
    await new Promise((done) => setTimeout(done, EVERY));
  }
}

begin();
