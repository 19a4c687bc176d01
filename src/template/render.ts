/**
 * Templates: a folder of real files with `<% %>` tokens in text and `__token__` in names, rendered into a new project.
 *
 * Secret: eta (sole user), and how an unknown name is caught. `{{ }}` and `${}` of CI files and Makefiles are left alone.
 */
import type { Context } from '../core/context.ts';

export interface RenderRequest {
  /** Name of a folder in templates/: 'python-service'. */
  readonly template: string;
  /** The new folder; must not exist or be empty. */
  readonly target: string;
  /** Answers by key, as given by --set; what is absent is asked for or takes its default. */
  readonly values: Readonly<Record<string, string>>;
  /** Asks for a value that is not given; absent: defaults are taken. */
  readonly ask?: (question: Question) => Promise<string>;
}

export interface Question {
  readonly key: string;
  readonly description: string;
  readonly default: string;
}

export interface RenderResult {
  readonly target: string;
  readonly values: Readonly<Record<string, string>>;
  /** Relative to the target, sorted. */
  readonly files: readonly string[];
}

/**
 * Renders a template into a new folder; nothing is left behind when it fails.
 * @throws UserError `unknown-template`, `template-unknown-key`, `template-bad-value`, `target-not-empty`
 */
export declare function renderTemplate(context: Context, request: RenderRequest): Promise<RenderResult>;
