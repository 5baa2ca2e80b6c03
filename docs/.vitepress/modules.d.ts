// What code of the pages imports and this project does not install: as much of it as they use.
declare module '@prisma/adapter-pg' {
  export const PrismaPg: any;
}

declare module 'pg' {
  interface Queries {
    query(text: string, values?: unknown[]): Promise<{ rows: any[]; rowCount: number | null }>;
  }
  export interface PoolClient extends Queries {
    release(): void;
  }
  export interface Pool extends Queries {
    connect(): Promise<PoolClient>;
  }
  export const Pool: new (options?: object) => any;
}

declare module '@simplewebauthn/server' {
  export function generateAuthenticationOptions(options: {
    rpID: string;
    userVerification?: 'required' | 'preferred' | 'discouraged';
  }): Promise<{ challenge: string }>;
  export function generateRegistrationOptions(options: {
    rpName: string;
    rpID: string;
    userName: string;
  }): Promise<{ challenge: string }>;
  export function verifyRegistrationResponse(options: {
    response: object;
    expectedChallenge: string;
    expectedOrigin: string;
    expectedRPID: string;
  }): Promise<{ verified: boolean; registrationInfo?: { credential: object } }>;
  export function verifyAuthenticationResponse(options: {
    response: object;
    expectedChallenge: string;
    expectedOrigin: string;
    expectedRPID: string;
    credential: object;
  }): Promise<{ verified: boolean; authenticationInfo: { newCounter: number } }>;
}

declare module 'openid-client' {
  export class Configuration {}
  export function randomPKCECodeVerifier(): string;
  export function randomState(): string;
  export function calculatePKCECodeChallenge(verifier: string): Promise<string>;
  export function buildAuthorizationUrl(provider: Configuration, parameters: Record<string, string>): URL;
  export function authorizationCodeGrant(
    provider: Configuration,
    url: URL,
    checks: { pkceCodeVerifier?: string; expectedState?: string },
  ): Promise<{ claims(): { sub: string; auth_time?: number } | undefined }>;
}

declare module 'supertest' {
  interface Sent extends Promise<unknown> {
    set(header: string, value: string): Sent;
    set(headers: object): Sent;
    expect(status: number, text?: string): Sent;
  }
  interface Client {
    get(path: string): Sent;
    post(path: string): Sent;
  }
  function request(server: unknown): Client;
  namespace request {
    function agent(server: unknown): Client;
  }
  export default request;
}

declare module 'express-session' {
  const session: { (options: object): () => void; Store: new () => object };
  export default session;
}
