import { describeFaults } from './faults.suite.js';

describeFaults('mariadb');
