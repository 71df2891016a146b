// The whole group of the integration: members and partitions, as Kafka and the members
// report them. They are read while the view is open.

import { $, el, refresh, setText } from "./dom.js";
import { count, seconds } from "./format.js";
import { ask } from "./stream.js";

const EVERY = 3000; // the bridge looks them up at most every two seconds
const FEW = 500; // partitions drawn

let turn = 0; // of the reading that counts

export function opened() {
  read(++turn);
}

async function read(mine) {
  if (mine !== turn || $("group").hidden) return;
  if (!document.hidden) {
    try {
      const answer = await ask("group");
      if (mine !== turn) return;
      draw(answer);
    } catch (e) {
      setText($("group-line"), e.message);
    }
  }
  setTimeout(read, EVERY, mine);
}

const known = (n) => (n < 0 ? "–" : count(n));

function draw(g) {
  const i = g.integrations[0] || { members: [], partitions: [], members_answering: 0, members_delivering: 0, lag: -1, state: "" };
  const answering = g.peers_configured ? i.members_answering + " of " + i.members.length + " members answer, " : i.members.length + " members, ";
  setText($("group-line"), !g.integrations.length ? "No member runs it: it is disabled." : answering + i.members_delivering + " deliver, lag " + known(i.lag) + (i.state ? ", group " + i.state : "") +
    (g.peers_configured ? "." : ". ops.peers is not set: other members are shown as Kafka knows them."));
  refresh($("group-problems"), g.problems.map((p) => el("li", {}, el("strong", {}, p.code), el("span", {}, p.text), p.remedy && el("span", { class: "muted" }, p.remedy))));
  refresh($("group-members").tBodies[0], i.members.map((m) => el("tr", {},
    el("td", {}, m.member_id || "–"),
    el("td", {}, m.host || "–"),
    el("td", {}, m.peer || "–"),
    el("td", {}, state(m), m.in_group === false ? " not in the group" : "", (m.not_ready || []).map((r) => " " + r.code).join("")),
    el("td", {}, (m.sink && m.sink.state) || "–"),
    el("td", { class: "n" }, count(m.partitions)))));
  refresh($("group-partitions").tBodies[0], i.partitions.slice(0, FEW).map((p) => el("tr", {},
    el("td", {}, p.topic + "/" + p.partition),
    el("td", { class: p.reason ? "why" : "" }, p.state || "–", p.reason ? " " + p.reason : ""),
    el("td", { class: "n" }, known(p.lag)),
    el("td", { class: "n" }, p.oldest_unacked_seconds > 0 ? seconds(p.oldest_unacked_seconds) : "–"),
    el("td", { class: "n" }, known(p.committed)),
    el("td", { class: "n wide" }, known(p.end_offset)),
    el("td", { class: "wide" }, p.peer || p.member_id || "–"))));
  $("group-more").hidden = i.partitions.length <= FEW;
  setText($("group-more"), "The first " + count(FEW) + " of " + count(i.partitions.length) + " partitions. bridge status --scope group shows all.");
}

function state(m) {
  const [word, tone] = m.answering === null ? ["not asked", "idle"] : !m.answering ? ["no answer", "bad"] : m.ready ? [m.state, "ok"] : [m.state, "warn"];
  return el("span", { class: "tag", "data-tone": tone }, word);
}
