import { describeInterleavings } from './interleaving.suite.js';

describeInterleavings('mariadb');
