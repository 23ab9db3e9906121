// @ts-check
/** The words and numbers of the job panel: pure functions, no side effects. */

/**
 * What nodes/remote/job_list.py tells of a job, and of all of them.
 * @typedef {{
 *   id: string, service: string, title: string, model: string, state: string, created: number, message: string,
 *   size: (number | null)[], estimate_usd: number, cost_usd: number | null, unfinished: boolean, choice: string,
 *   request: object, pictures: {position: number, width: number, height: number, seed: number | null}[],
 * }} Job times in Unix seconds; choice: its line in Klein Recover Job, "" where nothing can be fetched
 * @typedef {{jobs: Job[], spent_today_usd: number, spent_by_day: {day: string, usd: number}[], note: string}} Book
 */

/** @type {Record<string, string>} */
const STATES = {
  submitting: "being sent",
  accepted: "running",
  saved: "finished",
  moderated: "held back by the service",
  unknown: "may have been billed",
  refused: "not accepted, not billed",
  failed: "failed",
};

/** @param {Job} job */
export function describeState(job) {
  return STATES[job.state] ?? job.state;
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
  return job.cost_usd === null ? `about $${job.estimate_usd.toFixed(4)}` : `$${job.cost_usd.toFixed(4)}`;
}

/**
 * @param {number} created Unix seconds
 * @param {number} now Unix seconds
 */
export function describeAge(created, now) {
  const minutes = Math.floor((now - created) / 60);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ago`;
  return `${Math.floor(minutes / 1440)} days ago`;
}

/** @param {{day: string, usd: number}[]} days the newest first */
export function describeDays(days) {
  return days.map(({ day, usd }) => ({ day, usd: `$${usd.toFixed(4)}`, share: usd / Math.max(...days.map((d) => d.usd)) }));
}

/**
 * One line on the node before Run.
 * @param {{usd: number, seconds: number | null, jobs: number, upload_bytes?: number}} told
 */
export function describeEstimate({ usd, seconds, jobs, upload_bytes = 0 }) {
  const words = [`about $${usd.toFixed(4)}`];
  if (upload_bytes >= 5e5) words.push(`about ${(upload_bytes / 1e6).toFixed(1)} MB to send`);
  if (seconds !== null) {
    const times = jobs === 1 ? "job" : `${jobs} jobs`;
    words.push(`about ${Math.max(1, Math.round(seconds))} s (median of your last ${times})`);
  }
  return words.join(", ");
}
