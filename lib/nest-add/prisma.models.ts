/** The models of docs/store-prisma.md; a test compares them. */
export const PRISMA_MODELS = `model Visit {
  id               String         @id @db.VarChar(32)
  keyHash          String         @map("key_hash") @db.VarChar(64)
  previousKeyHash  String?        @map("previous_key_hash") @db.VarChar(64)
  previousKeyUntil BigInt?        @map("previous_key_until")
  keyChanged       BigInt         @map("key_changed")
  created          BigInt
  accessed         BigInt
  expiry           BigInt
  absoluteExpiry   BigInt?        @map("absolute_expiry")
  endedAt          BigInt?        @map("ended_at")
  endReason        String?        @map("end_reason") @db.VarChar(32)
  permanent        Boolean
  remoteAddress    String?        @map("remote_address") @db.VarChar(45)
  userAgent        String?        @map("user_agent") @db.VarChar(255)
  sessionData      Bytes?         @map("session_data")
  sessionVersion   Int            @map("session_version")
  lockOwner        String?        @map("lock_owner") @db.VarChar(32)
  lockedUntil      BigInt?        @map("locked_until")
  identity         VisitIdentity?

  @@index([expiry])
  @@index([endedAt])
  @@map("visit")
}

model VisitIdentity {
  visitId         String @id @map("visit_id") @db.VarChar(32)
  userId          String @map("user_id") @db.VarChar(255)
  created         BigInt
  authenticatedAt BigInt @map("authenticated_at")
  visit           Visit  @relation(fields: [visitId], references: [id], onDelete: Cascade, onUpdate: NoAction)

  @@index([userId])
  @@map("visit_identity")
}

model VisitRevocation {
  userHash String @id @map("user_hash") @db.VarChar(64)
  endedAt  BigInt @map("ended_at")

  @@index([endedAt])
  @@map("visit_revocation")
}
`;
