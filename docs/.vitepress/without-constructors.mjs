// A plugin of typedoc: leaves out the constructors of what Nest injects and of what the library throws. Nobody else
// calls them.
import { Converter, ReflectionKind } from 'typedoc';

export function load(app) {
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    for (const constructor of project.getReflectionsByKind(ReflectionKind.Constructor)) {
      if (/(Service|Guard|Health|Module|Error)$/.test(constructor.parent?.name ?? ''))
        project.removeReflection(constructor);
    }
  });
}
