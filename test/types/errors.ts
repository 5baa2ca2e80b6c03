import { HttpException } from '@nestjs/common';
import { expectTypeOf } from 'vitest';
import * as library from 'nest-visit';
import type { VisitErrorCode } from 'nest-visit';

// Compiled and never run.

type Library = typeof library;
type Classes = {
  [
    Name in keyof Library as Library[Name] extends abstract new (...args: never[]) => infer E
      ? E extends { code: VisitErrorCode }
        ? Name
        : never
      : never
  ]: Library[Name] extends abstract new (...args: never[]) => infer E ? E : never;
};

/** The code of each class of errors: one that is added says its own, or is named here as one that may have any. */
type Codes = { [Name in keyof Classes]: Classes[Name] extends { readonly code: infer Code } ? Code : never };
type SayAll = { [Name in keyof Codes]: VisitErrorCode extends Codes[Name] ? Name : never }[keyof Codes];

expectTypeOf<SayAll>().toEqualTypeOf<'VisitError' | 'VisitHttpError'>();
expectTypeOf<Codes['VisitLimitError']>().toEqualTypeOf<'VISIT_LIMIT'>();
expectTypeOf<Codes['VisitOptionError']>().toEqualTypeOf<'VISIT_OPTION'>();
expectTypeOf<Codes['SessionDataError']>().toEqualTypeOf<
  'SESSION_VALUE' | 'SESSION_UNREADABLE' | 'SESSION_TOO_LARGE' | 'SESSION_RESERVED_NAME'
>();

export function told(error: unknown): string {
  if (error instanceof library.VisitEndedError) {
    expectTypeOf(error.code).toEqualTypeOf<'VISIT_ENDED'>();
    expectTypeOf(error.extensions.code).toEqualTypeOf<'VISIT_ENDED'>();
    expectTypeOf(error).toExtend<HttpException>();
    // @ts-expect-error: never
    if (error.code === 'VISIT_LIMIT') return '';
  }
  if (error instanceof library.VisitError) {
    expectTypeOf(error.code).toEqualTypeOf<VisitErrorCode>();
    // @ts-expect-error: no error has it
    if (error.code === 'VISIT_ENDDE') return '';
  }
  return '';
}

/** Two classes are told apart by their codes. */
export function told2(error: library.VisitLimitError | library.SessionDataError): string | undefined {
  return error.code === 'VISIT_LIMIT' ? undefined : error.path;
}
