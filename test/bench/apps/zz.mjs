import { Observable } from 'rxjs';
import { AsyncLocalStorage } from 'node:async_hooks';
import { createHash } from 'node:crypto';
const mode = process.env.INT_MODE ?? '';
const als = new AsyncLocalStorage();
const has = (m) => mode.split(',').includes(m);
export async function prepare({database,url}) {
  const { createPool } = await import('mysql2');
  const pool = createPool({uri:url,connectionLimit:10});
  const p = pool.promise();
  await p.query('CREATE TABLE visit (id varchar(32) PRIMARY KEY, key_hash varchar(64) NOT NULL, expiry bigint NOT NULL, counter int NOT NULL)');
  const rows=[]; for(let i=0;i<200;i++) rows.push([i.toString(16).padStart(32,'0'),createHash('sha256').update('x'.repeat(43)).digest('hex'),Date.now()+1e8,0]);
  await p.query('INSERT INTO visit VALUES ?',[rows]);
let waiting = [], inFlight=0, sched=false;
const schedule=()=>{ if(sched||inFlight>=2||!waiting.length)return; sched=true; setImmediate(()=>{sched=false; const w=waiting; waiting=[]; inFlight++; const ids=[...new Set(w.map(x=>x.id))]; let n=1; while(n<ids.length)n*=2; while(ids.length<n)ids.push(ids[0]);
  pool[has('q')?'query':'execute'](`SELECT id,key_hash,expiry,counter FROM visit WHERE id IN (${ids.map(()=>'?').join()})`,ids,(e,r)=>{ inFlight--; if(e){console.error(e);for(const x of w)x.done(null);return;} const m=new Map(); for(const x of r)m.set(x.id,x); for(const x of w)x.done(m.get(x.id)); schedule();});});};
const load=(id)=>new Promise((done)=>{waiting.push({id,done});schedule();});
const visitOf=(request)=>{const c=request.headers.cookie; const s=c.indexOf('visit='); const id=c.slice(s+6,s+38); const h=createHash('sha256').update(c.slice(s+39)).digest('hex'); return load(id).then((v)=>{if(!v||v.key_hash!==h)throw new Error('no');request.vis=v;return v;});};
class I { intercept(ctx, next) {
    if (has('pass')) return next.handle();
    return new Observable((s) => { let sub; visitOf(ctx.switchToHttp().getRequest()).then(() => { sub = next.handle().subscribe(s); }, (e) => s.error(e)); return () => sub?.unsubscribe(); });
  } }
  return {
    install(app) {
      if (has('pass') || has('int')) app.useGlobalInterceptors(new I());
      const inst = app.getHttpAdapter().getInstance();
      if (has('als')) { if (inst.addHook) inst.addHook('onRequest', (rq, rp, done) => als.run({ rq }, done)); else app.use((rq, rs, next) => als.run({ rq }, next)); }
      if (has('pre')) inst.addHook ? inst.addHook('preHandler', (rq, rp, done) => {visitOf(rq).then(()=>done(),done)}) : app.use((rq,rs,next)=>{visitOf(rq).then(()=>next(),next)});
    },
    handlers: { static: () => 'static', read: (rq) => has('none')?{counter:0}: rq.vis ? ({ counter: rq.vis.counter }) : visitOf(rq).then((v)=>({counter:v.counter})), write: () => ({ counter: ++counter }), login: () => ({ counter }) },
  };
}
