// Runs autocannon in a process of its own, one load after another: its work must not wait for ours, nor be started anew
// each time.
import autocannon from 'autocannon';

async function load({ cookies, timeout, ...options }) {
  let clients = 0;
  try {
    const result = await autocannon({
      ...options,
      timeout,
      // How often it looks at the clock: the default of a second would lengthen short loads.
      sampleInt: 100,
      setupClient: (client) => {
        const index = clients++;
        const own = cookies.filter((_, position) => position % options.connections === index % options.connections);
        const shown = own.length > 0 ? own : [cookies[index % cookies.length]];
        client.setRequests(shown.map((cookie) => ({ headers: { cookie } })));
      },
    });
    process.send({
      seconds: result.duration,
      ok: result['2xx'],
      refused: result.non2xx,
      // Autocannon counts those that ran into the time limit among the errors.
      failed: result.errors,
      latency: (options.connections * result.duration * 1e6) / result['2xx'],
      p99: result.latency.p99 * 1000,
    });
  } catch (error) {
    process.send({ error: String(error?.stack ?? error) });
  }
}

process.on('message', (options) => void load(options));
process.on('disconnect', () => process.exit(0));
