package schemas

// The fields of every record in the order of its schema. A field that is added
// to a schema is added here at the same place, and a test compares both.

func (m *Input) wire(w *wire) {
	w.string(&m.ID)
	w.string(&m.Type)
	w.time(&m.ReceivedAt)
	w.time(&m.OccurredAt)
	w.string(&m.Source)
	w.nullString(&m.UserID)
	w.nullString(&m.Email)
	w.nullString(&m.AnonymousID)
	w.nullString(&m.ContactID)
	w.nullString(&m.Event)
	w.nullString(&m.EventProperties)
	w.nullString(&m.ContactProperties)
	table(w, &m.Lists, wireBool)
	w.nullString(&m.IdempotencyKey)
	w.nullString(&m.Scope)
	w.bool(&m.Wait)
	w.count(&m.Hops)
}

func (m *Resolved) wire(w *wire) {
	w.string(&m.ID)
	w.string(&m.Type)
	w.string(&m.ContactID)
	w.time(&m.OccurredAt)
	null(w, &m.Input, (*Input).wire)
	w.bool(&m.Created)
	w.bool(&m.Duplicate)
	w.nullString(&m.UserID)
	w.nullString(&m.Email)
	w.nullString(&m.AnonymousID)
	list(w, &m.Linked, (*Identifier).wire)
	list(w, &m.Conflicts, (*Conflict).wire)
	list(w, &m.Merging, wireString)
	null(w, &m.Merge, (*Merge).wire)
	null(w, &m.Absorb, (*Absorb).wire)
}

func (m *Identifier) wire(w *wire) {
	w.string(&m.Kind)
	w.string(&m.Value)
}

func (m *Conflict) wire(w *wire) {
	w.string(&m.Kind)
	w.string(&m.Value)
	w.string(&m.Reason)
	w.nullString(&m.OtherContactID)
}

func (m *Merge) wire(w *wire) {
	w.string(&m.Survivor)
	w.string(&m.InputID)
}

func (m *Absorb) wire(w *wire) {
	w.string(&m.Loser)
	w.string(&m.InputID)
	null(w, &m.State, (*Contact).wire)
	w.bool(&m.Deleted)
	null(w, &m.Record, (*ForwardedInput).wire)
}

func (m *Contact) wire(w *wire) {
	w.string(&m.ID)
	w.long(&m.Version)
	w.long(&m.Seq)
	w.long(&m.Era)
	w.nullString(&m.UserID)
	w.nullString(&m.Email)
	w.nullString(&m.AnonymousID)
	list(w, &m.Identifiers, (*Identifier).wire)
	list(w, &m.Merged, wireString)
	w.string(&m.Properties)
	list(w, &m.Preferences, (*Preference).wire)
	w.time(&m.FirstSeenAt)
	w.time(&m.LastSeenAt)
	w.time(&m.CreatedAt)
	w.time(&m.UpdatedAt)
}

func (m *Preference) wire(w *wire) {
	w.string(&m.Email)
	w.bool(&m.UnsubscribedAll)
	w.bool(&m.Suppressed)
	w.count(&m.BounceCount)
	table(w, &m.Categories, wireBool)
	null(w, &m.SuppressedAt, wireTime)
	null(w, &m.LastBounceAt, wireTime)
}

func (m *ForwardedInput) wire(w *wire) {
	w.string(&m.ID)
	m.Input.wire(w)
	w.bool(&m.Duplicate)
	list(w, &m.Linked, (*Identifier).wire)
	list(w, &m.Conflicts, (*Conflict).wire)
	list(w, &m.Merging, wireString)
}

func (m *Event) wire(w *wire) {
	w.string(&m.ID)
	w.string(&m.ContactID)
	w.string(&m.Name)
	w.nullString(&m.UserID)
	w.nullString(&m.Email)
	w.nullString(&m.AnonymousID)
	w.string(&m.Properties)
	w.time(&m.OccurredAt)
	w.time(&m.ReceivedAt)
	w.string(&m.Source)
	w.count(&m.Hops)
	w.long(&m.Seq)
	w.long(&m.Era)
	w.bool(&m.Wait)
}

func (m *Fact) wire(w *wire) {
	w.string(&m.ID)
	w.string(&m.Type)
	w.string(&m.ContactID)
	w.nullString(&m.UserID)
	w.nullString(&m.Email)
	w.nullString(&m.AnonymousID)
	w.time(&m.OccurredAt)
	w.string(&m.CauseID)
	w.long(&m.Seq)
	w.long(&m.Era)
	w.long(&m.CauseSeq)
	w.long(&m.WriterSeq)
	w.count(&m.Hops)
	null(w, &m.Contact, (*ContactFact).wire)
	null(w, &m.Deleted, (*ContactDeleted).wire)
	null(w, &m.Merged, (*ContactMerged).wire)
	null(w, &m.Conflict, (*ContactConflict).wire)
	null(w, &m.Unsubscribed, (*Unsubscribed).wire)
	null(w, &m.EmailFact, (*EmailFact).wire)
	null(w, &m.Journey, (*JourneyFact).wire)
	null(w, &m.Bucket, (*BucketTransition).wire)
}

func (m *ContactFact) wire(w *wire) {
	w.long(&m.Version)
	w.string(&m.Properties)
	list(w, &m.Changed, wireString)
	w.time(&m.FirstSeenAt)
	w.time(&m.LastSeenAt)
	w.time(&m.CreatedAt)
	w.time(&m.UpdatedAt)
	list(w, &m.Merged, wireString)
	list(w, &m.AnonymousIDs, wireString)
}

func (m *ContactDeleted) wire(w *wire) {
	w.long(&m.Version)
}

func (m *ContactMerged) wire(w *wire) {
	w.string(&m.LoserID)
	w.long(&m.Version)
	w.string(&m.Properties)
	list(w, &m.Gained, (*Identifier).wire)
	list(w, &m.LoserMerged, wireString)
	list(w, &m.Merged, wireString)
	list(w, &m.AnonymousIDs, wireString)
}

func (m *ContactConflict) wire(w *wire) {
	list(w, &m.Conflicts, (*Conflict).wire)
	w.string(&m.InputID)
}

func (m *Unsubscribed) wire(w *wire) {
	w.string(&m.Address)
	w.nullString(&m.Category)
	w.string(&m.Scope)
}

func (m *EmailFact) wire(w *wire) {
	w.string(&m.EmailSendID)
	w.nullString(&m.ProviderMessageID)
	w.nullString(&m.TemplateKey)
	w.string(&m.To)
	w.nullString(&m.Category)
	w.nullString(&m.Subject)
	w.nullString(&m.JourneyStateID)
	w.nullString(&m.LinkURL)
	w.nullString(&m.LinkID)
	w.nullString(&m.BounceType)
	w.nullString(&m.BounceReason)
	w.nullString(&m.ComplaintType)
	null(w, &m.SentAt, wireTime)
}

func (m *JourneyFact) wire(w *wire) {
	w.string(&m.JourneyID)
	w.string(&m.JourneyName)
	w.string(&m.StateID)
	null(w, &m.CompletedAt, wireTime)
	w.nullString(&m.Reason)
	w.nullString(&m.Version)
	w.nullString(&m.Key)
	w.nullString(&m.Arm)
	null(w, &m.Entry, wireLong)
	w.nullString(&m.Step)
	w.nullString(&m.Outcome)
	w.nullString(&m.Error)
	w.nullString(&m.Trigger)
	null(w, &m.Since, wireTime)
}

func (m *BucketTransition) wire(w *wire) {
	w.string(&m.BucketID)
	w.string(&m.BucketName)
	w.string(&m.Transition)
	w.long(&m.EntryCount)
	w.string(&m.Source)
	w.nullString(&m.Reason)
	w.nullString(&m.Label)
	null(w, &m.DwellCount, wireLong)
}

func (m *Signal) wire(w *wire) {
	w.string(&m.ID)
	w.string(&m.Type)
	w.string(&m.For)
	w.string(&m.ContactID)
	w.time(&m.OccurredAt)
	w.long(&m.Epoch)
	w.string(&m.What)
	w.nullString(&m.State)
	null(w, &m.Merged, (*MergedSignal).wire)
	null(w, &m.Deleted, (*DeletedSignal).wire)
	null(w, &m.Receipt, (*Receipt).wire)
	w.count(&m.Hops)
}

func (m *MergedSignal) wire(w *wire) {
	w.string(&m.Survivor)
	w.long(&m.Seq)
	w.long(&m.Era)
}

func (m *DeletedSignal) wire(w *wire) {
	w.long(&m.Seq)
	w.long(&m.Era)
}

func (m *Receipt) wire(w *wire) {
	w.string(&m.OutboxID)
	w.string(&m.Kind)
	w.string(&m.Destination)
	w.string(&m.Result)
	w.bool(&m.Final)
	w.count(&m.Attempts)
	null(w, &m.Status, wireInt)
	w.nullString(&m.ReceiverID)
	w.nullString(&m.Body)
	w.string(&m.Reason)
	w.count(&m.Hops)
}

func (m *Outbox) wire(w *wire) {
	w.string(&m.ID)
	w.string(&m.ContactID)
	w.time(&m.OccurredAt)
	w.string(&m.Destination)
	w.string(&m.Kind)
	w.string(&m.Body)
	table(w, &m.Headers, wireString)
	w.time(&m.NotAfter)
	w.string(&m.Asker)
	w.long(&m.Epoch)
	w.count(&m.Hops)
}

func (m *EmailRequest) wire(w *wire) {
	w.string(&m.ID)
	w.string(&m.ContactID)
	w.time(&m.OccurredAt)
	w.string(&m.Template)
	w.nullString(&m.To)
	w.nullString(&m.From)
	w.nullString(&m.Subject)
	w.nullString(&m.ReplyTo)
	w.nullString(&m.Category)
	w.string(&m.Props)
	w.nullString(&m.JourneyID)
	w.nullString(&m.JourneyStateID)
	w.bool(&m.SkipPreference)
	w.count(&m.Hops)
}

func (m *DeadLetter) wire(w *wire) {
	w.string(&m.ID)
	w.time(&m.OccurredAt)
	w.string(&m.Source)
	w.string(&m.Reason)
	w.string(&m.Error)
	w.count(&m.Attempts)
	w.string(&m.SourceTopic)
	w.int32(&m.Partition)
	w.long(&m.Offset)
	null(w, &m.EndOffset, wireLong)
	w.nullString(&m.DestinationID)
	w.string(&m.RecordID)
	w.string(&m.RecordType)
	w.nullBytes(&m.RecordKey)
	w.nullBytes(&m.RecordValue)
	table(w, &m.RecordHeaders, wireString)
	null(w, &m.ResponseCode, wireInt)
	w.nullString(&m.ResponseBody)
}
