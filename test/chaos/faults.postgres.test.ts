import { describeFaults } from './faults.suite.js';

describeFaults('postgres');
