// Decorators record the types of parameters and properties through it, so it must be there before any class.
import 'reflect-metadata';
