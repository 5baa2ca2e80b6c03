/** Whether tests that look for rare things are to take their time: hours, not seconds. */
export const isSoak = process.env['VISIT_TEST_SOAK'] === '1';
