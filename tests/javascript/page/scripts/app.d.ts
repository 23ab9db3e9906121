/**
 * ComfyUI's page as Kleinod's scripts see it: the published types, and by hand what they leave out.
 *
 * The published ones are of frontend 1.45.6: of 1.47.12, which ComfyUI 0.30.0 brings, there are none.
 * `test_the_page_has_what_its_types_say` looks up every name written here in the real frontend.
 */
import type { ComfyApp, ComfyExtension, ExtensionManager } from "@comfyorg/comfyui-frontend-types";

type PublishedNode = Parameters<NonNullable<ComfyExtension["nodeCreated"]>>[0];

/** A widget of a node; what its value is, is the node definition's business. */
export type Widget = Omit<NonNullable<PublishedNode["widgets"]>[number], "value" | "callback"> & {
  value?: any;
  callback?: (...given: any[]) => void;
  /** what is sent in place of the value; `saved` is the node as this run's workflow keeps it */
  serializeValue?: (saved: any, place: number) => unknown;
};

export type Graph = NonNullable<PublishedNode["graph"]>;

export interface DOMWidgetOptions {
  /** whether the value is sent; `Widget.serialize` says whether it is saved */
  serialize?: boolean;
  hideOnZoom?: boolean;
  /** what the classic renderer leaves free on all sides, of the height asked for */
  margin?: number;
  getMinHeight?: () => number;
  getMaxHeight?: () => number;
  /** pixels that the classic renderer takes on all sides from the height asked for; 10 where nothing is said */
  margin?: number;
  getValue?: () => unknown;
  setValue?: (value: any) => void;
}

export interface GraphNode extends PublishedNode {
  addDOMWidget(name: string, type: string, element: HTMLElement, options?: DOMWidgetOptions): Widget;
  getInputNode(slot: number): GraphNode | null;
  /** gets what the node's class on the server returned as `ui` */
  onExecuted?(output: Record<string, any>): void;
}

interface Dialogs {
  /** the text typed; null where the user closed the dialog */
  prompt(question: { title: string; message: string; defaultValue?: string }): Promise<string | null>;
}

interface Extension extends Omit<ComfyExtension, "nodeCreated" | "getNodeMenuItems"> {
  nodeCreated?(node: GraphNode): void;
  /** by locator: the number of a node, inside a subgraph with its id and a colon in front */
  onNodeOutputsUpdated?(outputs: Record<string, Record<string, any>>): void;
  getNodeMenuItems?(node: GraphNode): ReturnType<NonNullable<ComfyExtension["getNodeMenuItems"]>>;
}

type Page = Omit<ComfyApp, "extensionManager" | "registerExtension"> & {
  canvas: { selectedItems: Set<any> };
  extensionManager: Omit<ExtensionManager, "dialog"> & { dialog: Dialogs };
  registerExtension(extension: Extension): void;
};

export const app: Page;

declare global {
  var LiteGraph: {
    createNode(type: string): GraphNode | null;
    /** Nodes 2.0: nodes are page elements, not drawn on the canvas */
    vueNodesMode: boolean;
  };
}
