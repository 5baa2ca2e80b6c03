import { describeInterleavings } from './interleaving.suite.js';

describeInterleavings('postgres');
