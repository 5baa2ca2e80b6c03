/**
 * Visits through Prisma.
 *
 * @module nest-visit/prisma
 */

export { PrismaVisitStore } from './prisma-visit.store.js';
export type { PrismaVisitClient, PrismaVisitModel } from './prisma.client.js';
