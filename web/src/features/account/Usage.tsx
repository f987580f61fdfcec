import { Figures } from "./Figures";
import { Section, Shown } from "./parts";
import { useStrings } from "./strings";
import type { Me } from "./types";
import { useAllowance } from "./usage";

/** What one uses oneself, and one's organisation. */
export default function Usage({ me }: { me: Me }) {
  const s = useStrings();
  const allowance = useAllowance();
  return (
    <Section title={s.usage} text={s.usageText}>
      <Shown query={allowance}>
        {(data) =>
          data && (
            <div className="space-y-6">
              {[data.user, ...(data.organisation ? [data.organisation] : [])].map((usage) => (
                <section key={usage.scope} aria-label={s.usageOf[usage.scope]}>
                  <h2 className="mb-2 font-semibold text-base">
                    {usage.scope === "user" ? s.usageOf.user : (me.organisation?.name ?? s.usageOf.organisation)}
                  </h2>
                  <div className="rounded-lg border bg-raised p-4">
                    <Figures usage={usage} figures={usage.limits ?? []} />
                  </div>
                </section>
              ))}
            </div>
          )
        }
      </Shown>
    </Section>
  );
}
