/** Whether tests that search for rare failures may take hours instead of seconds. */
export const isSoak = process.env['VISIT_TEST_SOAK'] === '1';
