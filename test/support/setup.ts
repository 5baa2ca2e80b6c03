// Decorators use it to record the types of parameters and properties, so it must be loaded before any class.
import 'reflect-metadata';
