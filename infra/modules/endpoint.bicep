// A private endpoint to one service, with its name in a DNS zone.

@description('The name of the endpoint.')
param name string

@description('Where its subnet lives.')
param location string

@description('Tags of the endpoint.')
param tags object

@description('The resource that it leads to.')
param targetId string

@description('Which service of the resource.')
@allowed(['blob', 'table', 'vault', 'account', 'sites'])
param group string

@description('The subnet that it stands in.')
param subnetId string

@description('The DNS zone that names it.')
param zoneId string

resource endpoint 'Microsoft.Network/privateEndpoints@2024-05-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    subnet: { id: subnetId }
    privateLinkServiceConnections: [
      {
        name: group
        properties: {
          privateLinkServiceId: targetId
          groupIds: [group]
        }
      }
    ]
  }

  resource zone 'privateDnsZoneGroups' = {
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        {
          name: group
          properties: { privateDnsZoneId: zoneId }
        }
      ]
    }
  }
}
