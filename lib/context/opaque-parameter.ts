/**
 * The parameter decorator, whose parameter no pipe takes for something to be made anew: `ValidationPipe` with
 * `validateCustomDecorators` would make an instance of the parameter's type of it, which is what TypeScript has
 * emitted. It emits the types of a method before it decorates its parameters.
 *
 * @param type what is emitted where the parameter is declared with it
 */
export function opaque<Arguments extends unknown[]>(
  decorator: (...given: Arguments) => ParameterDecorator,
  type: () => unknown,
): (...given: Arguments) => ParameterDecorator {
  return (...given) =>
    (target, method, index) => {
      decorator(...given)(target, method, index);
      if (method === undefined) return;
      const types = Reflect.getOwnMetadata('design:paramtypes', target, method) as unknown[] | undefined;
      if (types && types[index] === type()) types[index] = Object;
    };
}
