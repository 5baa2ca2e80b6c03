/** The checked options, as the parts of this library get them. */
export const VISIT_OPTIONS = Symbol('nest-visit: options');
