// @ts-check
/** The words and numbers of the job panel: pure functions, no side effects. */
import { noted, say } from "./words.js";

/**
 * What nodes/remote/job_list.py tells of a job, and of all of them.
 * @typedef {{
 *   id: string, service: string, title: string, model: string, state: string, created: number, message: string,
 *   size: (number | null)[], estimate_usd: number, cost_usd: number | null, unfinished: boolean, choice: string,
 *   seed: number | null, waited_for: boolean, unsent: boolean, request: object, pictures: {position: number, width: number, height: number, seed: number | null, worker?: string}[],
 * }} Job times in Unix seconds; choice: its line in Klein Recover Job, "" where nothing can be fetched
 * @typedef {{jobs: Job[], spent_today_usd: number, spent_by_day: {day: string, usd: number}[], note: string}} Book
 */

/** @type {Record<string, string>} */
const STATES = {
  submitting: noted("being sent"),
  accepted: noted("running"),
  saved: noted("finished"),
  moderated: noted("held back by the service"),
  unknown: noted("may have been billed"),
  refused: noted("not accepted, not billed"),
  failed: noted("failed"),
};

/**
 * What became of a job. One that nobody waits for any more, as after an interrupt, goes on and is paid; one that never
 * reached the service was refused by nobody.
 * @param {Job} job
 */
export function describeState(job) {
  if (job.state === "accepted" && !job.waited_for) return say("goes on, paid");
  if (job.state === "refused" && job.unsent) return say("not sent, not billed");
  return say(STATES[job.state] ?? job.state);
}

/** @param {Job} job the seeds of its pictures as the service told them, else the one that was asked for */
export function describeSeeds(job) {
  const told = job.pictures.map(({ seed }) => seed).filter((seed) => seed !== null);
  const seeds = told.length ? told : [job.seed].filter((seed) => seed !== null);
  if (!seeds.length) return "";
  return seeds.length === 1 ? say("Seed %1", seeds[0] ?? "") : say("Seeds %1", seeds.join(", "));
}

/** @param {Job} job who of a cluster drew how many of its pictures, "" where nobody says so */
export function describeWorkers(job) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const { worker } of job.pictures) if (worker) counts.set(worker, (counts.get(worker) ?? 0) + 1);
  return counts.size ? say("Drawn by %1", [...counts].map(([worker, count]) => `${worker} (${count})`).join(", ")) : "";
}

/** @param {Job} job */
export function describeJob(job) {
  const size = job.size[0] ? `${job.size[0]}x${job.size[1]}` : "";
  return [job.title, job.model, size].filter(Boolean).join(", ");
}

/**
 * @param {Job} job
 * @returns {string} what the service said it cost, or what it is likely to cost
 */
export function describeCost(job) {
  if (job.state === "refused") return "$0";
  if (job.cost_usd === null && job.estimate_usd === 0) return say("free"); // a server of the user's own
  return job.cost_usd === null ? say("about $%1", job.estimate_usd.toFixed(4)) : `$${job.cost_usd.toFixed(4)}`;
}

/**
 * @param {number} created Unix seconds
 * @param {number} now Unix seconds
 */
export function describeAge(created, now) {
  const minutes = Math.floor((now - created) / 60);
  if (minutes < 1) return say("just now");
  if (minutes < 60) return say("%1 min ago", minutes);
  if (minutes < 48 * 60) return say("%1 h ago", Math.floor(minutes / 60));
  return say("%1 days ago", Math.floor(minutes / 1440));
}

/** @param {{day: string, usd: number}[]} days the newest first */
export function describeDays(days) {
  return days.map(({ day, usd }) => ({ day, usd: `$${usd.toFixed(4)}`, share: usd / Math.max(...days.map((d) => d.usd)) }));
}

/**
 * What it will cost, and where it goes if that is a server of the user's own.
 * @param {{usd: number, server?: string}} told
 */
export function describePrice({ usd, server = "" }) {
  const price = usd || !server ? say("about $%1", usd.toFixed(4)) : say("free");
  return server ? `${server}: ${price}` : price;
}

/**
 * One line on the node before Run.
 * @param {{usd: number, server?: string, seconds: number | null, jobs: number, upload_bytes?: number}} told
 */
export function describeEstimate({ usd, server, seconds, jobs, upload_bytes = 0 }) {
  const words = [describePrice({ usd, server })];
  if (upload_bytes >= 5e5) words.push(say("about %1 MB to send", (upload_bytes / 1e6).toFixed(1)));
  if (seconds !== null) {
    const about = Math.max(1, Math.round(seconds));
    words.push(jobs === 1 ? say("about %1 s (as your last job)", about) : say("about %1 s (median of your last %2 jobs)", about, jobs));
  }
  return words.join(", ");
}
