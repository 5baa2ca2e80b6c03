import type { IncomingMessage } from 'node:http';

/** Whether a handshake comes from a page of another site, with the cookie of its visitor. */
export type IsForeign = (handshake: IncomingMessage) => boolean;

/** The option of `ws`: a function with two parameters answers later. */
interface OfWs {
  verifyClient?: VerifyClient | ((info: { req: IncomingMessage }) => boolean);
}
type VerifyClient = (
  info: { req: IncomingMessage },
  done: (isLetIn: boolean, code?: number, ...rest: unknown[]) => void,
) => void;

/** The option of socket.io. */
interface OfSocketIo {
  allowRequest?: AllowRequest;
}
type AllowRequest = (
  request: IncomingMessage,
  done: (message: string | null | undefined, isLetIn: boolean) => void,
) => void;

const REFUSAL = 'Forbidden';

/**
 * Options that make a socket server refuse handshakes of other sites with 403, before there is a socket. The
 * application's own option is called after that.
 */
export function refusingForeign<Options extends object>(options: Options, isForeign: IsForeign): Options {
  const { verifyClient, allowRequest } = options as OfWs & OfSocketIo;
  const ofWs: VerifyClient = (info, done) => {
    if (isForeign(info.req)) done(false, 403, REFUSAL);
    else if (!verifyClient) done(true);
    else if (verifyClient.length === 2) verifyClient(info, done);
    else done((verifyClient as (info: object) => boolean)(info));
  };
  const ofSocketIo: AllowRequest = (request, done) => {
    if (!isForeign(request)) return allowRequest ? allowRequest(request, done) : done(null, true);
    const refuse = (): void => done(REFUSAL, false);
    // It answers requests of its own with 403, and upgrades with 400.
    if (request.headers.upgrade === undefined) refuse();
    else request.socket.end(answer, refuse);
  };
  return { ...options, verifyClient: ofWs, allowRequest: ofSocketIo };
}

const answer = [
  'HTTP/1.1 403 Forbidden',
  'Connection: close',
  'Content-Type: text/plain',
  `Content-Length: ${REFUSAL.length}`,
  '',
  REFUSAL,
].join('\r\n');
