// @ts-check
/** The services that the server knows, asked once: no script names one. */
import { call } from "./server.js";

/**
 * What nodes/remote/routes.py tells of a service.
 * @typedef {{title: string, company: string, node: string, key_page: string, regions: string[], widgets: string[]}} Service
 */

/** @type {Record<string, Service>} */
export const SERVICES = await call("services").catch((error) => {
  console.warn(`Kleinod: the services could not be read (${error.message}).`);
  return {};
});

/** The name of the service that a node sends to. @param {string | undefined} node @returns {string | undefined} */
export const serviceOf = (node) => Object.keys(SERVICES).find((name) => SERVICES[name].node === node);
